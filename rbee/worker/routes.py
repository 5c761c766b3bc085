"""The worker's HTTP routes."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from starlette.responses import Response

from rbee import __version__
from rbee.contracts.ids import new_id
from rbee.contracts.tasks import InferenceRequest
from rbee.contracts.workers import ReadyStatus, SlotsStatus, WorkerHealth, WorkerStopReceipt
from rbee.daemonkit.drain import Drain
from rbee.daemonkit.sse import DONE, EventStream, encode
from rbee.worker.service import Service
from rbee.worker.stream import InferenceStream


def build(service: Service, drain: Drain[WorkerStopReceipt]) -> APIRouter:
    """Make the routes of one worker."""
    router = APIRouter()
    settings = service.settings

    @router.get("/v1/health")
    async def health() -> WorkerHealth:
        """Tell that the worker lives, in which state it is, and whether a request is stalled."""
        return WorkerHealth(
            version=__version__,
            worker_id=settings.worker_id,
            state=service.state,
            slots_total=settings.slots,
            slots_available=service.slots_available,
            model_ref=settings.name,
            backend=settings.backend,
            device=settings.device,
            context_length=service.context_length,
            idle_s=round(service.idle_s, 3),
            stalled_s=round(service.stalled_s, 3),
            memory_bytes=resident_bytes(),
        )

    @router.get("/v1/ready", response_model_exclude_none=True)
    async def ready(request: Request) -> ReadyStatus:
        """Tell whether the model is loaded, and where to follow its loading."""
        loaded = service.state.serves
        url = None if loaded else str(request.url.replace(path="/v1/loading/progress", query=""))
        return ReadyStatus(ready=loaded, state=service.state, model_loaded=loaded, progress_url=url)

    @router.get("/v1/loading/progress")
    async def loading() -> Response:
        """Follow the loading of the model."""
        return EventStream(_loading(service), until=drain.closed)

    @router.post("/v1/inference")
    async def infer(body: InferenceRequest, request: Request) -> Response:
        """Generate tokens."""
        began = time.monotonic()
        request_id = body.request_id or request.scope.get("state", {}).get("request_id") or new_id("req")
        generation = await service.begin(body, request_id)
        return InferenceStream(generation, cancel=lambda: service.cancel(request_id), began=began)

    @router.delete("/v1/inference/{request_id}", status_code=204)
    async def cancel(request_id: str) -> None:
        """Stop a generation; once more, or one that is over, is fine."""
        service.cancel(request_id)

    @router.get("/v1/slots")
    async def slots() -> SlotsStatus:
        """Describe the slots."""
        return service.slots()

    @router.post("/v1/admin/shutdown")
    async def shutdown() -> WorkerStopReceipt:
        """Finish what runs, free the model and end; answers when that is done."""
        return await drain.finish()

    return router


async def _loading(service: Service) -> AsyncIterator[bytes]:
    async for progress in service.loading.follow():
        yield encode(progress)
    yield DONE


def resident_bytes() -> int:
    """Measure the memory that this process holds."""
    import psutil

    return int(psutil.Process(os.getpid()).memory_info().rss)
