"""The node registry: add, list, remove."""

from __future__ import annotations

from fastapi import APIRouter

from rbee.contracts.hives import NodeInfo, NodeRef, NodeSpec
from rbee.contracts.queen import BeehiveList
from rbee.queen.deps import Accepting, QueenDep

router = APIRouter(prefix="/v2/registry/beehives")


@router.post("/add", dependencies=[Accepting])
async def add(spec: NodeSpec, queen: QueenDep) -> NodeInfo:
    """Register a node and open a channel to its hive; with `replace` change one that is there."""
    return await queen.add_node(spec)


@router.get("/list")
async def list_nodes(queen: QueenDep) -> BeehiveList:
    """List the registered nodes; the queen's own machine is not one of them."""
    return BeehiveList(beehives=await queen.nodes())


@router.post("/remove", status_code=204)
async def remove(node: NodeRef, queen: QueenDep) -> None:
    """Forget a node; its hive goes on."""
    await queen.remove_node(node.node_name)
