"""The devices of the machine, and the worker programs."""

from __future__ import annotations

from fastapi import APIRouter

from rbee.contracts.hives import BackendList, WorkerBinary, WorkerBinaryList
from rbee.hive.devices.report import describe
from rbee.hive.routes.dependencies import HiveDep
from rbee.hive.workers.process import PROGRAM, worker_program

router = APIRouter()


@router.get("/v1/backends/list")
async def backends(hive: HiveDep) -> BackendList:
    """List backends and devices with their memory now."""
    return describe(await hive.devices.look())


@router.get("/v1/worker-binaries/list")
async def worker_binaries(hive: HiveDep) -> WorkerBinaryList:
    """List the worker programs; WORKER_BINARY_NOT_FOUND if there is none."""
    path = worker_program(hive.settings.worker_binary)
    return WorkerBinaryList(binaries=[WorkerBinary(name=PROGRAM, path=str(path))])
