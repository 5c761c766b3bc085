"""Devices: yield them to other programs, and use them again."""

from __future__ import annotations

from fastapi import APIRouter

from rbee.contracts.devices import DeviceSelection, YieldRequest
from rbee.contracts.hives import ResumeReceipt, YieldReceipt
from rbee.daemonkit.json_body import JsonBody
from rbee.hive.routes.dependencies import HiveDep

router = APIRouter(prefix="/v1/devices")


@router.post("/yield")
async def yield_devices(hive: HiveDep, body: JsonBody[YieldRequest]) -> YieldReceipt:
    """Empty devices for another program, and start no worker there; answered when their workers are gone."""
    hive.drain.check()
    return await hive.yield_devices(body)


@router.post("/resume")
async def resume_devices(hive: HiveDep, body: JsonBody[DeviceSelection]) -> ResumeReceipt:
    """Use devices again that were yielded."""
    return await hive.resume_devices(body)
