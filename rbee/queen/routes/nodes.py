"""The node registry: add, list, remove."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from rbee.contracts.hives import NodeInfo, NodeRef, NodeSpec, NodeSpecs
from rbee.contracts.queen import BeehiveList, PageQuery
from rbee.daemonkit.json_body import JsonBody
from rbee.queen.fleet.node_specs import parse_nodes
from rbee.queen.routes.dependencies import QueenDep

router = APIRouter(prefix="/v2/registry/beehives")


@router.post("/add")
async def add(queen: QueenDep, body: JsonBody[NodeSpec]) -> NodeInfo:
    """Register a node and open a channel to its hive; with `replace` change one that is there."""
    queen.drain.check()
    (node,) = await queen.add_nodes([body])
    return node


@router.post("/add-many")
async def add_many(queen: QueenDep, body: JsonBody[NodeSpecs]) -> BeehiveList:
    """Register several nodes, all or none of them; what is wrong is told of each one."""
    queen.drain.check()
    return BeehiveList(beehives=await queen.add_nodes(parse_nodes(body.nodes)))


@router.get("/list")
async def list_nodes(queen: QueenDep, query: Annotated[PageQuery, Query()]) -> BeehiveList:
    """List the registered nodes, or a part of them; the queen's own machine is not one of them."""
    limit = query.limit
    nodes = await queen.nodes(query.after, None if limit is None else limit + 1)
    more = limit is not None and len(nodes) > limit
    nodes = nodes[:limit]
    return BeehiveList(beehives=nodes, next=nodes[-1].node_name if more else None)


@router.post("/remove", status_code=204, response_class=Response)
async def remove(queen: QueenDep, body: JsonBody[NodeRef]) -> None:
    """Remove a node; its hive keeps running."""
    await queen.remove_node(body.node_name)
