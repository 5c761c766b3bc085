"""The node registry: add, list, remove."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from rbee.contracts.hives import NodeInfo, NodeRef, NodeSpec
from rbee.contracts.queen import BeehiveList
from rbee.daemonkit.json_body import JsonBody
from rbee.queen.routes.dependencies import QueenDep

router = APIRouter(prefix="/v2/registry/beehives")


@router.post("/add")
async def add(queen: QueenDep, body: JsonBody[NodeSpec]) -> NodeInfo:
    """Register a node and open a channel to its hive; with `replace` change one that is there."""
    queen.drain.check()
    return await queen.add_node(body)


@router.get("/list")
async def list_nodes(queen: QueenDep) -> BeehiveList:
    """List the registered nodes; the queen's own machine is not one of them."""
    return BeehiveList(beehives=await queen.nodes())


@router.post("/remove", status_code=204, response_class=Response)
async def remove(queen: QueenDep, body: JsonBody[NodeRef]) -> None:
    """Remove a node; its hive keeps running."""
    await queen.remove_node(body.node_name)
