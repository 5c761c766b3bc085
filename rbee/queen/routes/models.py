"""Models on a node: list, show, fetch, remove; its hive does it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from rbee.contracts.models import ModelDetails
from rbee.contracts.queen import ModelList, NodeModel, NodeQuery
from rbee.daemonkit.json_body import JsonBody
from rbee.daemonkit.sse import DONE, EventStream
from rbee.queen.daemon import Queen
from rbee.queen.placement import Wish
from rbee.queen.routes.dependencies import QueenDep
from rbee.queen.story import encoded

router = APIRouter(prefix="/v2/models")


@router.get("/list")
async def list_models(queen: QueenDep, query: Annotated[NodeQuery, Query()]) -> ModelList:
    """List a node's catalogue."""
    await queen.readiness.met(Wish("", query.node))
    return ModelList(models=await queen.channels.client(query.node).models())


@router.get("/show")
async def show(queen: QueenDep, query: Annotated[NodeModel, Query()]) -> ModelDetails:
    """Show one model, with what its file says of itself."""
    await queen.readiness.met(Wish("", query.node))
    return await queen.channels.client(query.node).model(queen.board.reference(query.model))


@router.delete("", status_code=204, response_class=Response)
async def remove(queen: QueenDep, query: Annotated[NodeModel, Query()]) -> None:
    """Remove a model from a node's catalogue, and its file if the hive fetched it."""
    await queen.readiness.met(Wish("", query.node))
    client = queen.channels.client(query.node)
    known = await client.model(queen.board.reference(query.model))
    await client.remove_model(known.id)


@router.post("/download", status_code=200, response_class=EventStream)
async def download(queen: QueenDep, body: JsonBody[NodeModel]) -> EventStream:
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
