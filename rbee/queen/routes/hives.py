"""Hives as the queen knows them, and their devices: yield them to other programs, and use them again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from rbee.contracts.devices import DeviceSelection, YieldRequest
from rbee.contracts.hives import ResumeReceipt, YieldReceipt
from rbee.contracts.queen import HiveList, NodePageQuery, NodeResume, NodeYield
from rbee.daemonkit.json_body import JsonBody
from rbee.queen.fleet.heard import hear_of_ends, hear_of_yields
from rbee.queen.fleet.pages import hive_page
from rbee.queen.routes.dependencies import QueenDep

router = APIRouter(prefix="/v2/hives")


@router.get("/list")
async def list_hives(queen: QueenDep, query: Annotated[NodePageQuery, Query()]) -> HiveList:
    """List every hive, that of one node, or a part of them, with what it reported."""
    return hive_page(queen.fleet.registry, query.node, query.after, query.limit)


@router.post("/yield")
async def yield_devices(queen: QueenDep, body: JsonBody[NodeYield]) -> YieldReceipt:
    """Empty devices of a node for another program; the answer comes when their workers are gone."""
    queen.drain.check()
    await queen.readiness.ensure_node(body.node)
    request = YieldRequest.model_validate(body.model_dump(exclude={"node"}))
    receipt = await queen.channels.client(body.node).yield_devices(request)
    places = [(each.device.backend, each.device.index) for each in receipt.devices]
    await hear_of_yields(queen.fleet, body.node, places, yielded=True)
    await hear_of_ends(queen.fleet, [worker.worker_id for each in receipt.devices for worker in each.workers])
    return receipt.model_copy(update={"node": body.node})


@router.post("/resume")
async def resume_devices(queen: QueenDep, body: JsonBody[NodeResume]) -> ResumeReceipt:
    """Use devices of a node again that were yielded."""
    await queen.readiness.ensure_node(body.node)
    request = DeviceSelection.model_validate(body.model_dump(exclude={"node"}))
    receipt = await queen.channels.client(body.node).resume_devices(request)
    places = [(each.backend, each.device) for each in receipt.devices]
    await hear_of_yields(queen.fleet, body.node, places, yielded=False)
    return receipt.model_copy(update={"node": body.node})
