"""Build the worker's application and run it to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import time

from fastapi import APIRouter

from rbee.contracts.tasks import MAX_BODY_BYTES
from rbee.contracts.workers import ReadyReport, WorkerState, WorkerStopReceipt
from rbee.daemonkit import server
from rbee.daemonkit.app import create_app
from rbee.daemonkit.auth import Authenticator
from rbee.daemonkit.drain import Drain
from rbee.daemonkit.sockets import bind
from rbee.daemonkit.tickets import Tickets
from rbee.lifeline import OwnerLink
from rbee.net import host_port
from rbee.worker import routes
from rbee.worker.compat import routes as compat_routes
from rbee.worker.dependencies import Worker
from rbee.worker.engine.thread import EngineThread
from rbee.worker.ready_report import report_ready
from rbee.worker.running_clients import RunningClients
from rbee.worker.service import WorkerService
from rbee.worker.settings import WorkerSettings

log = logging.getLogger(__name__)


def run(settings: WorkerSettings, thread: EngineThread, owner: OwnerLink) -> int:
    """Serve until the end; return the exit code: 0, or 1 if the model or the engine failed.

    Raises RbeeError if the port cannot be had.
    """
    service = WorkerService(settings, thread, tell=owner.tell)
    sock = bind(settings.host, settings.port)
    url = f"http://{host_port(settings.host, sock.getsockname()[1])}"

    async def ending() -> WorkerStopReceipt:
        began = time.monotonic()
        before = routes.resident_bytes()
        await service.end()
        return WorkerStopReceipt(
            worker_id=settings.worker_id,
            pid=os.getpid(),
            gone=not service.stuck,
            seconds=round(time.monotonic() - began, 3),
            requests_stopped=service.requests_stopped,
            memory_returned_bytes=max(0, before - routes.resident_bytes()),
        )

    drain = Drain(ending, name=f"Worker {settings.worker_id}")
    authenticator = Authenticator(
        f"Worker {settings.worker_id} at {url}",
        settings.key,
        open_paths=("/health", "/v1/health"),
        tickets=Tickets(settings.key),
    )
    app = create_app(
        "llm-worker-rbee",
        Worker(service, drain),
        authenticator=authenticator,
        routers=[routes.router, compat_routes.router],
        late_routers=_late_routers,
        max_body_bytes=MAX_BODY_BYTES,
        around=lambda app: RunningClients(app, owner.tell),
    )

    def begin() -> None:
        service.attach()
        tasks.add(asyncio.ensure_future(_end_after_failure(service, drain)))
        if settings.callback_url:
            report = ReadyReport(
                worker_id=settings.worker_id,
                url=url,
                model_ref=settings.name,
                backend=settings.backend,
                device=settings.device,
            )
            tasks.add(asyncio.ensure_future(report_ready(settings.callback_url, settings.key, report)))

    tasks: set[asyncio.Future[None]] = set()
    server.serve(app, sock, lambda: drain, owner, then=begin)
    return 1 if service.state is WorkerState.CRASHED or service.stuck else 0


def _late_routers() -> list[APIRouter]:
    """Return the routes that few clients use."""
    from rbee.worker.compat import llama_server, ollama_routes  # no start waits for them

    return [ollama_routes.router, llama_server.router]


async def _end_after_failure(service: WorkerService, drain: Drain[WorkerStopReceipt]) -> None:
    await service.ended.wait()
    drain.begin()
