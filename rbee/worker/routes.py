"""The worker's HTTP routes."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from rbee import __version__
from rbee.contracts.tasks import InferenceRequest
from rbee.contracts.workers import ReadyStatus, SlotsStatus, WorkerHealth, WorkerStopReceipt
from rbee.daemonkit import errors
from rbee.daemonkit.json_body import JsonBody
from rbee.daemonkit.sse import DONE, EventStream, encode
from rbee.worker.deadline import deadline_of
from rbee.worker.dependencies import WorkerDep
from rbee.worker.figures import figures
from rbee.worker.service import Service
from rbee.worker.stream import InferenceStream
from rbee.worker.wish import wish_of

router = APIRouter()


@router.get("/v1/health")
async def health(worker: WorkerDep) -> WorkerHealth:
    """Tell that the worker lives, in which state it is, and whether a request is stalled."""
    service, settings = worker.service, worker.service.settings
    return WorkerHealth(
        version=__version__,
        worker_id=settings.worker_id,
        state=service.state,
        slots_total=settings.slots,
        slots_available=service.running.slots_available,
        model_ref=settings.name,
        backend=settings.backend,
        device=settings.device,
        context_length=service.context_length,
        idle_s=round(service.running.idle_s, 3),
        stalled_s=round(service.running.stalled_s, 3),
        memory_bytes=resident_bytes(),
    )


@router.get("/v1/ready")
async def ready(worker: WorkerDep, request: Request) -> ReadyStatus:
    """Tell whether the model is loaded, and where to follow its loading."""
    loaded = worker.service.state.serves
    url = None if loaded else str(request.url.replace(path="/v1/loading/progress", query=""))
    return ReadyStatus(ready=loaded, state=worker.service.state, model_loaded=loaded, progress_url=url)


@router.get("/v1/loading/progress", status_code=200, response_class=EventStream)
async def loading(worker: WorkerDep) -> EventStream:
    """Follow the loading of the model."""
    return EventStream(_loading(worker.service), until=worker.drain.closed)


@router.post("/v1/inference", status_code=200, response_class=InferenceStream)
async def infer(worker: WorkerDep, body: JsonBody[InferenceRequest], request: Request) -> InferenceStream:
    """Generate tokens."""
    began = time.monotonic()
    service = worker.service
    request_id = body.request_id or errors.request_id_of(request) or ""
    (generation,) = await service.running.begin([wish_of(body)], request_id, deadline_s=deadline_of(request))
    return InferenceStream(generation, cancel=lambda: service.running.cancel(request_id), began=began)


@router.delete("/v1/inference/{request_id}", status_code=204, response_class=Response)
async def cancel(worker: WorkerDep, request_id: str) -> None:
    """Stop a generation; once more, or one that is over, is fine."""
    worker.service.running.cancel(request_id)


@router.get("/v1/slots")
async def slots(worker: WorkerDep) -> SlotsStatus:
    """Describe the slots."""
    return worker.service.slots()


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(worker: WorkerDep) -> Response:
    """Give the worker's figures for Prometheus."""
    content, media_type = figures(worker.service, resident_bytes())
    return Response(content, media_type=media_type)


@router.post("/v1/admin/shutdown")
async def shutdown(worker: WorkerDep) -> WorkerStopReceipt:
    """Finish what runs, free the model, end; answered when that is done."""
    return await worker.drain.finish()


async def _loading(service: Service) -> AsyncIterator[bytes]:
    async for progress in service.loading.follow():
        yield encode(progress)
    yield DONE


def resident_bytes() -> int:
    """Measure the memory that this process holds."""
    import psutil

    return int(psutil.Process(os.getpid()).memory_info().rss)
