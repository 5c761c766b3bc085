"""Models on a node: list, show, download, remove; its hive does it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from rbee.contracts.models import ModelDetails
from rbee.contracts.queen import ModelList, NodeModel, NodeQuery
from rbee.daemonkit.json_body import JsonBody
from rbee.daemonkit.sse import DONE, EventStream
from rbee.queen.daemon import Queen
from rbee.queen.progress import encode_event
from rbee.queen.routes.dependencies import QueenDep
from rbee.queen.scheduling.placement import PlacementRequest

router = APIRouter(prefix="/v2/models")


@router.get("/list")
async def list_models(queen: QueenDep, query: Annotated[NodeQuery, Query()]) -> ModelList:
    """List a node's catalog, and the downloads that run there."""
    await queen.readiness.ensure_node(query.node)
    return await queen.channels.client(query.node).models()


@router.get("/show")
async def show(queen: QueenDep, query: Annotated[NodeModel, Query()]) -> ModelDetails:
    """Show one model, with the metadata of its file."""
    await queen.readiness.ensure_node(query.node)
    return await queen.channels.client(query.node).model(queen.tasks.reference(query.model))


@router.delete("", status_code=204, response_class=Response)
async def remove(queen: QueenDep, query: Annotated[NodeModel, Query()]) -> None:
    """Remove a model from a node's catalog, and its file if the hive downloaded it."""
    await queen.readiness.ensure_node(query.node)
    client = queen.channels.client(query.node)
    known = await client.model(queen.tasks.reference(query.model))
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
    await queen.channels.client(query.node).cancel_download(queen.tasks.reference(query.model))


async def _download_events(queen: Queen, request: NodeModel) -> AsyncIterator[bytes]:
    model = queen.tasks.reference(request.model)
    async for event in queen.readiness.events(PlacementRequest(model, request.node)):
        yield encode_event(event)
    job = queen.starter.ensure_model(request.node, model)
    async with aclosing(job.events()) as events:
        async for event in events:
            yield encode_event(event)
    await job.result()
    yield DONE
