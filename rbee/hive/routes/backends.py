"""The devices of the machine, and the worker programs."""

from __future__ import annotations

from rbee.contracts.hives import BackendList, WorkerBinary, WorkerBinaryList
from rbee.daemonkit.operations import Routes
from rbee.hive.daemon import Hive
from rbee.hive.devices.report import describe
from rbee.hive.workers.process import PROGRAM, worker_program

routes = Routes[Hive]()


@routes.get("/v1/backends/list")
async def backends(hive: Hive) -> BackendList:
    """List backends and devices with their memory now."""
    return describe(await hive.devices.look())


@routes.get("/v1/worker-binaries/list")
async def worker_binaries(hive: Hive) -> WorkerBinaryList:
    """List the worker programs; WORKER_BINARY_NOT_FOUND if there is none."""
    path = worker_program(hive.settings.worker_binary)
    return WorkerBinaryList(binaries=[WorkerBinary(name=PROGRAM, path=str(path))])
