"""Models on a node: list, show, download, remove; its hive does it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from rbee.contracts.models import ModelDetails
from rbee.contracts.queen import ModelList, NodeModel, NodeQuery
from rbee.daemonkit.operations import Routes
from rbee.daemonkit.sse import DONE, EventStream
from rbee.queen.daemon import Queen
from rbee.queen.progress import encode_event
from rbee.queen.scheduling.placement import PlacementRequest

routes = Routes[Queen]("/v2/models")


@routes.get("/list")
async def list_models(queen: Queen, query: NodeQuery) -> ModelList:
    """List a node's catalog."""
    await queen.readiness.ensure_node(query.node)
    return ModelList(models=await queen.channels.client(query.node).models())


@routes.get("/show")
async def show(queen: Queen, query: NodeModel) -> ModelDetails:
    """Show one model, with the metadata of its file."""
    await queen.readiness.ensure_node(query.node)
    return await queen.channels.client(query.node).model(queen.tasks.reference(query.model))


@routes.delete("")
async def remove(queen: Queen, query: NodeModel) -> None:
    """Remove a model from a node's catalog, and its file if the hive downloaded it."""
    await queen.readiness.ensure_node(query.node)
    client = queen.channels.client(query.node)
    known = await client.model(queen.tasks.reference(query.model))
    await client.remove_model(known.id)


@routes.post("/download")
async def download(queen: Queen, body: NodeModel) -> EventStream:
    """Download a model to a node; the answer is a stream of its progress."""
    queen.drain.check()
    return EventStream(_download_events(queen, body), until=queen.drain.closed)


async def _download_events(queen: Queen, request: NodeModel) -> AsyncIterator[bytes]:
    model = queen.tasks.reference(request.model)
    async for event in queen.readiness.events(PlacementRequest(model, request.node)):
        yield encode_event(event)
    job = queen.starter.ensure_model(request.node, model)
    async for event in job.events():
        yield encode_event(event)
    await job.result()
    yield DONE
