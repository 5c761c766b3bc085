"""Workers: list, start, take their ready reports, stop."""

from __future__ import annotations

from starlette.requests import Request

from rbee.contracts.queen import NodeQuarantine, WorkerList
from rbee.contracts.workers import ReadyAck, ReadyReport, SpawnRequest, WorkerAccess, WorkerStopReceipt
from rbee.daemonkit.operations import Routes
from rbee.hive.daemon import Hive

routes = Routes[Hive]("/v1/workers")


@routes.get("/list")
async def list_workers(hive: Hive) -> WorkerList:
    """List the workers of this machine, without their keys."""
    quarantined = [NodeQuarantine(**each.model_dump()) for each in hive.quarantines.listed()]
    return WorkerList(workers=[link.worker for link in hive.workers.all()], quarantined=quarantined)


@routes.post("/spawn")
async def spawn(hive: Hive, body: SpawnRequest) -> WorkerAccess:
    """Start a worker; answered when its process exists, not when its model is loaded."""
    hive.drain.check()
    return await hive.spawn(body)


@routes.post("/ready")
async def ready(hive: Hive, body: ReadyReport, request: Request) -> ReadyAck:
    """Take a worker's report that its port is bound; opened by that worker's own key only."""
    key = request.headers.get("Authorization", "").partition(" ")[2].strip()
    hive.workers.bind(body.worker_id, key)
    return ReadyAck(message=f"Worker {body.worker_id} is registered.", worker_id=body.worker_id)


@routes.post("/{worker_id}/shutdown")
async def shutdown(hive: Hive, worker_id: str) -> WorkerStopReceipt:
    """Stop a worker; answered when it is gone."""
    return await hive.workers.stop(worker_id, "asked to stop")
