"""Workers: list, start, hear that one is up, stop."""

from __future__ import annotations

from fastapi import APIRouter, Request

from rbee.contracts.queen import NodeQuarantine, WorkerList
from rbee.contracts.workers import ReadyAck, ReadyReport, SpawnRequest, WorkerLink, WorkerStopReceipt
from rbee.hive.deps import Accepting, HiveDep

router = APIRouter(prefix="/v1/workers")


@router.get("/list")
async def list_workers(hive: HiveDep) -> WorkerList:
    """List the workers of this machine, without their keys."""
    quarantined = [NodeQuarantine(**each.model_dump()) for each in hive.quarantines.listed()]
    return WorkerList(workers=[link.worker for link in hive.crew.links()], quarantined=quarantined)


@router.post("/spawn", dependencies=[Accepting])
async def spawn(request: SpawnRequest, hive: HiveDep) -> WorkerLink:
    """Start a worker; answered when its process exists, not when its model is loaded."""
    return await hive.spawn(request)


@router.post("/ready")
async def ready(report: ReadyReport, request: Request, hive: HiveDep) -> ReadyAck:
    """Take a worker's word that its port is bound; opened by that worker's own key only."""
    key = request.headers.get("Authorization", "").partition(" ")[2].strip()
    hive.crew.bound(report.worker_id, key)
    return ReadyAck(message=f"Worker {report.worker_id} is registered.", worker_id=report.worker_id)


@router.post("/{worker_id}/shutdown")
async def shutdown(worker_id: str, hive: HiveDep) -> WorkerStopReceipt:
    """Stop a worker; answered when it is gone."""
    return await hive.crew.stop(worker_id, "asked to stop")
