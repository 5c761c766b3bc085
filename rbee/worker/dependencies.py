"""What the worker's routes depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from rbee.contracts.workers import WorkerStopReceipt
from rbee.daemonkit.drain import Drain
from rbee.worker.service import WorkerService


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker: its service, and its end."""

    service: WorkerService
    drain: Drain[WorkerStopReceipt]


async def _worker(request: Request) -> Worker:
    daemon: Worker = request.app.state.daemon
    return daemon


WorkerDep = Annotated[Worker, Depends(_worker)]
