"""Models on nodes: list, show, download, remove; their hives do it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Final

from fastapi import APIRouter, Query
from starlette.responses import Response

from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import ModelDetails
from rbee.contracts.queen import FleetModelList, ModelList, NodeModel, NodesQuery, UnreachableHive
from rbee.daemonkit.json_body import JsonBody
from rbee.daemonkit.sse import DONE, EventStream
from rbee.errors import RbeeError
from rbee.queen.daemon import Queen
from rbee.queen.fleet.catalogs import merge
from rbee.queen.progress import encode_event
from rbee.queen.routes.dependencies import QueenDep
from rbee.queen.routes.model_access import reference_of
from rbee.queen.scheduling.request import PlacementRequest

router = APIRouter(prefix="/v2/models")
_ASKED_AT_ONCE: Final = 32


@router.get("/list")
async def list_models(queen: QueenDep, query: Annotated[NodesQuery, Query()]) -> FleetModelList:
    """List the models of the nodes named, or of all, each once, and the downloads that run there."""
    if len(query.node) == 1:
        (node,) = query.node
        return merge({node: await _ask(queen, node)})
    return await list_fleet(queen, query.node)


@router.get("/show")
async def show(queen: QueenDep, query: Annotated[NodeModel, Query()]) -> ModelDetails:
    """Show one model, with the metadata of its file."""
    await queen.readiness.ensure_node(query.node)
    return await queen.channels.client(query.node).model(reference_of(queen, query.model))


@router.delete("", status_code=204, response_class=Response)
async def remove(queen: QueenDep, query: Annotated[NodeModel, Query()]) -> None:
    """Remove a model from a node's catalog, and its file if the hive downloaded it."""
    await queen.readiness.ensure_node(query.node)
    client = queen.channels.client(query.node)
    known = await client.model(reference_of(queen, query.model))
    await client.remove_model(known.id)


@router.post("/download", status_code=200, response_class=EventStream)
async def download(queen: QueenDep, body: JsonBody[NodeModel]) -> EventStream:
    """Download a model to a node; the answer is a stream of its progress."""
    queen.drain.check()
    return EventStream(_download_events(queen, body), until=queen.drain.closed)


@router.delete("/download", status_code=204, response_class=Response)
async def cancel(queen: QueenDep, query: Annotated[NodeModel, Query()]) -> None:
    """Cancel a download on a node, for everybody who waits for it; what was received is kept for the next one."""
    await queen.readiness.ensure_node(query.node)
    await queen.channels.client(query.node).cancel_download(reference_of(queen, query.model))


async def list_fleet(queen: Queen, named: list[str]) -> FleetModelList:
    """List the models of several nodes, with those that do not answer; without *named* of all."""
    known = [hive.node for hive in queen.fleet.registry.hives()]
    nodes = list(dict.fromkeys(named or known))
    for node in nodes:
        if node not in known:
            raise RbeeError(ErrorCode.NODE_NOT_FOUND, f"There is no node named {node}.", details={"node": node})
    asked = asyncio.Semaphore(_ASKED_AT_ONCE)

    async def ask(node: str) -> ModelList | RbeeError:
        async with asked:
            try:
                return await _ask(queen, node, only_connected=node not in named)
            except RbeeError as error:
                return error

    answers = dict(zip(nodes, await asyncio.gather(*map(ask, nodes)), strict=True))
    merged = merge({node: answer for node, answer in answers.items() if isinstance(answer, ModelList)})
    seen = {hive.node: hive.last_seen for hive in queen.fleet.registry.hives()}
    merged.unreachable = [
        UnreachableHive(node=node, reason=answer.message, last_seen_unix=seen.get(node))
        for node, answer in answers.items()
        if isinstance(answer, RbeeError)
    ]
    return merged


async def _ask(queen: Queen, node: str, *, only_connected: bool = False) -> ModelList:
    """Return a node's catalog. Raises RbeeError where its hive does not answer."""
    await queen.readiness.ensure_node(node)
    hive = queen.fleet.registry.hive(node)
    # It was tried a moment ago: of a fleet, nobody waits for each machine that is switched off.
    if only_connected and hive is not None and not hive.connected:
        raise RbeeError(ErrorCode.CONNECTION_TIMEOUT, hive.last_error or "it has not answered yet")
    return await queen.channels.client(node).models()


async def _download_events(queen: Queen, request: NodeModel) -> AsyncIterator[bytes]:
    model = reference_of(queen, request.model)
    async for event in queen.readiness.events(PlacementRequest(model, request.node)):
        yield encode_event(event)
    job = queen.starter.ensure_model(request.node, model)
    async with aclosing(job.events()) as events:
        async for event in events:
            yield encode_event(event)
    await job.result()
    yield DONE
