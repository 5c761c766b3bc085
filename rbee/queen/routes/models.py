"""Models on a node: list, show, fetch, remove; its hive does it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import APIRouter
from starlette.responses import Response

from rbee.contracts.models import ModelDetails
from rbee.contracts.queen import ModelList, NodeModel
from rbee.daemonkit.sse import DONE, EventStream
from rbee.queen.daemon import Queen
from rbee.queen.deps import Accepting, ModelText, NodeName, QueenDep
from rbee.queen.placement import Wish

router = APIRouter(prefix="/v2/models")


@router.get("/list")
async def list_models(node: NodeName, queen: QueenDep) -> ModelList:
    """List a node's catalogue."""
    await queen.readiness.met(Wish("", node))
    return ModelList(models=await queen.channels.client(node).models())


@router.get("/show")
async def show(node: NodeName, model: ModelText, queen: QueenDep) -> ModelDetails:
    """Show one model, with what its file says of itself."""
    await queen.readiness.met(Wish("", node))
    return await queen.channels.client(node).model(queen.board.reference(model))


@router.delete("", status_code=204)
async def remove(node: NodeName, model: ModelText, queen: QueenDep) -> None:
    """Remove a model from a node's catalogue, and its file if the hive fetched it."""
    await queen.readiness.met(Wish("", node))
    client = queen.channels.client(node)
    known = await client.model(queen.board.reference(model))
    await client.remove_model(known.id)


@router.post("/download", dependencies=[Accepting], response_class=Response)
async def download(request: NodeModel, queen: QueenDep) -> EventStream:
    """Fetch a model to a node, and tell how that goes."""
    return EventStream(_fetching(queen, request), until=queen.drain.closed)


async def _fetching(queen: Queen, request: NodeModel) -> AsyncIterator[bytes]:
    model = queen.board.reference(request.model)
    async for event in queen.readiness.events(Wish(model, request.node)):
        yield event
    fetching = queen.starts.fetched(request.node, model)
    async for event in fetching.events():
        yield event
    await fetching.result()
    yield DONE
