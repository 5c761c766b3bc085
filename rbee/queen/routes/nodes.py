"""The node registry: add, list, remove."""

from __future__ import annotations

from rbee.contracts.hives import NodeInfo, NodeRef, NodeSpec
from rbee.contracts.queen import BeehiveList
from rbee.daemonkit.operations import Routes
from rbee.queen.daemon import Queen

routes = Routes[Queen]("/v2/registry/beehives")


@routes.post("/add")
async def add(queen: Queen, body: NodeSpec) -> NodeInfo:
    """Register a node and open a channel to its hive; with `replace` change one that is there."""
    queen.drain.check()
    return await queen.add_node(body)


@routes.get("/list")
async def list_nodes(queen: Queen) -> BeehiveList:
    """List the registered nodes; the queen's own machine is not one of them."""
    return BeehiveList(beehives=await queen.nodes())


@routes.post("/remove")
async def remove(queen: Queen, body: NodeRef) -> None:
    """Remove a node; its hive keeps running."""
    await queen.remove_node(body.node_name)
