"""Workers: list, start, take their ready reports, stop."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request

from rbee.contracts.queen import NodeQuarantine, WorkerList
from rbee.contracts.workers import ReadyAck, ReadyReport, SpawnRequest, WorkerAccess, WorkerEstimate, WorkerStopReceipt
from rbee.daemonkit.json_body import JsonBody
from rbee.hive.routes.dependencies import HiveDep

router = APIRouter(prefix="/v1/workers")


@router.get("/list")
async def list_workers(hive: HiveDep) -> WorkerList:
    """List the workers of this machine, without their keys."""
    quarantined = [NodeQuarantine(**each.model_dump()) for each in hive.quarantines.listed()]
    return WorkerList(workers=[link.worker for link in hive.workers.all()], quarantined=quarantined)


@router.post("/spawn")
async def spawn(hive: HiveDep, body: JsonBody[SpawnRequest]) -> WorkerAccess:
    """Start a worker; answered when its process exists, not when its model is loaded."""
    hive.drain.check()
    return await hive.spawn(body)


@router.post("/estimate")
async def estimate(hive: HiveDep, body: JsonBody[SpawnRequest]) -> WorkerEstimate:
    """Tell what a worker would take of memory; its model must be in the catalog."""
    return WorkerEstimate(need_bytes=await hive.workers.estimate(body))


@router.post("/ready")
async def ready(hive: HiveDep, body: JsonBody[ReadyReport], request: Request) -> ReadyAck:
    """Take a worker's report that its port is bound; opened by that worker's own key only."""
    key = request.headers.get("Authorization", "").partition(" ")[2].strip()
    hive.workers.bind(body.worker_id, key)
    return ReadyAck(message=f"Worker {body.worker_id} is registered.", worker_id=body.worker_id)


@router.post("/{worker_id}/shutdown")
async def shutdown(hive: HiveDep, worker_id: str) -> WorkerStopReceipt:
    """Stop a worker; answered when it is gone."""
    return await hive.workers.stop(worker_id, "asked to stop")
