"""Models on a node: list, show, fetch, remove; its hive does it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from rbee.contracts.models import ModelDetails
from rbee.contracts.queen import ModelList, NodeModel, NodeQuery
from rbee.daemonkit.operations import Routes
from rbee.daemonkit.sse import DONE, EventStream
from rbee.queen.daemon import Queen
from rbee.queen.placement import Wish
from rbee.queen.story import encoded

routes = Routes[Queen]("/v2/models")


@routes.get("/list")
async def list_models(queen: Queen, query: NodeQuery) -> ModelList:
    """List a node's catalogue."""
    await queen.readiness.met(Wish("", query.node))
    return ModelList(models=await queen.channels.client(query.node).models())


@routes.get("/show")
async def show(queen: Queen, query: NodeModel) -> ModelDetails:
    """Show one model, with what its file says of itself."""
    await queen.readiness.met(Wish("", query.node))
    return await queen.channels.client(query.node).model(queen.board.reference(query.model))


@routes.delete("")
async def remove(queen: Queen, query: NodeModel) -> None:
    """Remove a model from a node's catalogue, and its file if the hive fetched it."""
    await queen.readiness.met(Wish("", query.node))
    client = queen.channels.client(query.node)
    known = await client.model(queen.board.reference(query.model))
    await client.remove_model(known.id)


@routes.post("/download")
async def download(queen: Queen, body: NodeModel) -> EventStream:
    """Fetch a model to a node, and tell how that goes."""
    queen.drain.check()
    return EventStream(_fetching(queen, body), until=queen.drain.closed)


async def _fetching(queen: Queen, request: NodeModel) -> AsyncIterator[bytes]:
    model = queen.board.reference(request.model)
    async for event in queen.readiness.events(Wish(model, request.node)):
        yield encoded(event)
    fetching = queen.starts.fetched(request.node, model)
    async for event in fetching.events():
        yield encoded(event)
    await fetching.result()
    yield DONE
