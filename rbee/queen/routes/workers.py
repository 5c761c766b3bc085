"""Workers of the fleet: list, health, start, stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import ValidationError
from starlette.responses import Response

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import LOCALHOST_NODE, new_id
from rbee.contracts.queen import (
    SpawnTask,
    WorkerHealthList,
    WorkerHealthRow,
    WorkerList,
    WorkerSpawned,
    WorkerStop,
)
from rbee.contracts.workers import SpawnRequest, WorkerHealth, WorkerLink, WorkerStopReceipt
from rbee.daemonkit.sse import DONE, EventStream, encode
from rbee.errors import RbeeError
from rbee.queen.daemon import Queen
from rbee.queen.deps import Accepting, QueenDep
from rbee.queen.placement import Wish
from rbee.queen.upstream import UpstreamBroken

router = APIRouter(prefix="/v2/workers")
HEALTH_BYTES = 64 * 1024

MaybeNode = Annotated[str | None, Query(min_length=1, max_length=253)]


@router.get("/list")
async def list_workers(queen: QueenDep, node: MaybeNode = None) -> WorkerList:
    """List the workers of the fleet, or of one node."""
    _check_node(queen, node)
    registry = queen.fleet.registry
    return WorkerList(workers=registry.workers(node), quarantined=registry.quarantined(node))


@router.get("/health")
async def workers_health(queen: QueenDep, node: MaybeNode = None) -> WorkerHealthList:
    """Ask every worker how it is."""
    _check_node(queen, node)
    links = [queen.fleet.registry.worker(worker.worker_id) for worker in queen.fleet.registry.workers(node)]
    rows = await asyncio.gather(*(_health(queen, link) for link in links if link is not None))
    return WorkerHealthList(workers=list(rows))


@router.post("/spawn", dependencies=[Accepting], response_class=Response)
async def spawn(request: SpawnTask, queen: QueenDep) -> EventStream:
    """Start a worker and tell how that goes; ends when the worker is ready."""
    _check_node(queen, request.node)
    return EventStream(_spawning(queen, request), until=queen.drain.closed)


@router.post("/shutdown")
async def shutdown(stop: WorkerStop, queen: QueenDep) -> WorkerStopReceipt:
    """Stop a worker; answered when it is gone."""
    link = queen.fleet.registry.worker(stop.worker_id)
    if link is None:
        raise RbeeError(ErrorCode.WORKER_NOT_FOUND, f"There is no worker {stop.worker_id}.")
    return await queen.channels.client(link.worker.node).stop(stop.worker_id)


async def _spawning(queen: Queen, request: SpawnTask) -> AsyncIterator[bytes]:
    model = queen.board.reference(request.model)
    async for event in queen.readiness.events(Wish(model, request.node, request.backend, request.device)):
        yield event
    asked = SpawnRequest.model_validate(request.model_dump(exclude={"node"}) | {"model": model})
    start = queen.starts.explicit(request.node, asked)
    async for event in start.events():
        yield event
    yield encode(WorkerSpawned(worker=(await start.result()).worker))
    yield DONE


async def _health(queen: Queen, link: WorkerLink) -> WorkerHealthRow:
    """Ask one worker; what goes wrong is its row's error."""
    worker = link.worker
    row = WorkerHealthRow(node=worker.node, worker_id=worker.worker_id)
    try:
        upstream = await queen.pool.send("GET", worker.url, "/v1/health", key=link.api_key, request_id=new_id("health"))
    except (OSError, TimeoutError, UpstreamBroken) as error:
        return row.model_copy(update={"error": f"it does not answer: {str(error) or type(error).__name__}"})
    try:
        return row.model_copy(
            update={"health": WorkerHealth.model_validate(json.loads(await upstream.read_all(HEALTH_BYTES)))}
        )
    except (UpstreamBroken, ValidationError, ValueError) as error:
        return row.model_copy(update={"error": f"it does not answer as a worker does: {error}"})
    finally:
        queen.pool.release(worker.url, upstream)


def _check_node(queen: Queen, node: str | None) -> None:
    if node is not None and node != LOCALHOST_NODE and queen.fleet.registry.hive(node) is None:
        raise RbeeError(ErrorCode.NODE_NOT_FOUND, f"There is no node named {node}.")
