"""Workers of the fleet: list, health, start, stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import ValidationError

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import LOCALHOST_NODE
from rbee.contracts.queen import (
    FleetWorkerList,
    MaybeNodeQuery,
    NodePageQuery,
    NodeQuarantine,
    SpawnTask,
    WorkerHealthList,
    WorkerHealthRow,
    WorkerSpawned,
    WorkerStop,
)
from rbee.contracts.workers import SpawnRequest, WorkerAccess, WorkerHealth, WorkerStopReceipt
from rbee.daemonkit.json_body import JsonBody
from rbee.daemonkit.sse import DONE, EventStream, encode
from rbee.errors import RbeeError
from rbee.queen.daemon import Queen
from rbee.queen.fleet.heard import hear_of_ends
from rbee.queen.fleet.pages import worker_page
from rbee.queen.progress import encode_event
from rbee.queen.relay.connection import UpstreamError
from rbee.queen.relay.fetch import fetch
from rbee.queen.routes.dependencies import QueenDep
from rbee.queen.scheduling.request import PlacementRequest

router = APIRouter(prefix="/v2/workers")


@router.get("/list")
async def list_workers(queen: QueenDep, query: Annotated[NodePageQuery, Query()]) -> FleetWorkerList:
    """List the workers of the fleet, or of one node, or a part of them."""
    _check_node(queen, query.node)
    page = worker_page(queen.fleet.registry, query.node, query.after, query.limit)
    if not query.after:
        page.quarantined += [
            NodeQuarantine(
                client=queen.client_ids.name(block.client),
                model_ref=block.model,
                crashes=block.crashes,
                reason=block.explained(),
                until_unix=block.until,
            )
            for block in queen.fleet.blocks()
        ]
    return page


@router.get("/health")
async def workers_health(queen: QueenDep, query: Annotated[MaybeNodeQuery, Query()]) -> WorkerHealthList:
    """Ask every worker for its health; that of a hive which does not answer is not known."""
    _check_node(queen, query.node)
    registry = queen.fleet.registry
    links = [registry.worker(worker.worker_id) for worker in registry.workers(query.node)]
    rows = await asyncio.gather(*(_health(queen, link) for link in links if link is not None))
    unknown = [
        WorkerHealthRow(node=hive.node, worker_id=worker.worker_id, error=f"its hive does not answer: {hive.reason}")
        for hive in registry.unreachable(query.node)
        for worker in hive.workers
    ]
    return WorkerHealthList(workers=[*rows, *unknown])


@router.post("/spawn", status_code=200, response_class=EventStream)
async def spawn(queen: QueenDep, body: JsonBody[SpawnTask]) -> EventStream:
    """Start a worker; the answer is a stream of its progress, which ends when the worker is ready."""
    queen.drain.check()
    _check_node(queen, body.node)
    _check_not_declared(queen, body.model)
    return EventStream(_spawn_events(queen, body), until=queen.drain.closed)


@router.post("/shutdown")
async def shutdown(queen: QueenDep, body: JsonBody[WorkerStop]) -> WorkerStopReceipt:
    """Stop a worker; the answer comes when it is gone."""
    link = queen.fleet.registry.worker(body.worker_id)
    if link is None:
        raise RbeeError(ErrorCode.WORKER_NOT_FOUND, f"There is no worker {body.worker_id}.")
    receipt = await queen.channels.client(link.worker.node).stop(body.worker_id)
    await hear_of_ends(queen.fleet, [body.worker_id])
    return receipt


def _check_not_declared(queen: Queen, name: str) -> None:
    """Raise RbeeError INVALID_REQUEST for a declared model, whose workers are as it is declared."""
    declared = queen.declarations.find(name)
    if declared is not None:
        model = declared.model
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{name} is a declared model: the queen starts its workers itself, as it is declared.",
            hint=f"For another replica: rbee-keeper models serve {model.name} --replicas {model.replicas + 1}. "
            "For a worker beside the declared ones, name the file.",
            param="model",
        )


async def _spawn_events(queen: Queen, request: SpawnTask) -> AsyncIterator[bytes]:
    model = queen.tasks.reference(request.model)
    async for event in queen.readiness.events(PlacementRequest(model, request.node, request.backend, request.device)):
        yield encode_event(event)
    spawn_request = SpawnRequest.model_validate(request.model_dump(exclude={"node"}) | {"model": model})
    start = queen.starter.start_requested(request.node, spawn_request)
    async with aclosing(start.events()) as events:
        async for event in events:
            yield encode_event(event)
    yield encode(WorkerSpawned(worker=(await start.result()).worker))
    yield DONE


async def _health(queen: Queen, link: WorkerAccess) -> WorkerHealthRow:
    """Ask one worker; a failure is its row's error."""
    worker = link.worker
    row = WorkerHealthRow(node=worker.node, worker_id=worker.worker_id)
    try:
        body = await fetch(queen.pool, link, "/v1/health")
    except (OSError, TimeoutError, UpstreamError) as error:
        return row.model_copy(update={"error": f"it does not answer: {str(error) or type(error).__name__}"})
    try:
        return row.model_copy(update={"health": WorkerHealth.model_validate_json(body)})
    except ValidationError as error:
        return row.model_copy(update={"error": f"it does not answer as a worker does: {error}"})


def _check_node(queen: Queen, node: str | None) -> None:
    if node is not None and node != LOCALHOST_NODE and queen.fleet.registry.hive(node) is None:
        raise RbeeError(ErrorCode.NODE_NOT_FOUND, f"There is no node named {node}.")
