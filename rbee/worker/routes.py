"""The worker's HTTP routes."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from rbee import __version__
from rbee.contracts.ids import USAGE_HEADER
from rbee.contracts.tasks import InferenceRequest
from rbee.contracts.workers import ReadyStatus, SlotsStatus, WorkerHealth, WorkerShutdown, WorkerStopReceipt
from rbee.daemonkit import errors
from rbee.daemonkit.json_body import JsonBody
from rbee.daemonkit.sse import DONE, EventStream, encode
from rbee.observe import metrics as observed
from rbee.worker.deadline import read_deadline
from rbee.worker.dependencies import WorkerDep
from rbee.worker.generation import usage_counts
from rbee.worker.generation_request import from_inference_request
from rbee.worker.inference_stream import InferenceStream
from rbee.worker.progress_comments import ProgressComments
from rbee.worker.service import WorkerService

router = APIRouter()


@router.get("/health")
@router.get("/v1/health")
async def health(worker: WorkerDep) -> WorkerHealth:
    """Return the worker's state, and whether a request is stalled."""
    service, settings = worker.service, worker.service.settings
    return WorkerHealth(
        version=__version__,
        worker_id=settings.worker_id,
        state=service.state,
        slots_total=settings.slots,
        slots_available=service.requests.slots_available,
        model_ref=settings.name,
        backend=settings.backend,
        device=settings.device,
        context_length=service.context_length,
        idle_s=round(service.requests.idle_s, 3),
        stalled_s=round(service.requests.stalled_s, 3),
        memory_bytes=resident_bytes(),
    )


@router.get("/v1/ready")
async def ready(worker: WorkerDep, request: Request) -> ReadyStatus:
    """Return whether the model is loaded, and where to follow its loading."""
    loaded = worker.service.state.serves
    url = None if loaded else str(request.url.replace(path="/v1/loading/progress", query=""))
    service = worker.service
    return ReadyStatus(
        ready=loaded, state=service.state, model_loaded=loaded, progress_url=url, warning=service.warning
    )


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
    (generation,) = await service.requests.start(
        [from_inference_request(body)], request_id, deadline_s=read_deadline(request)
    )
    comments = ProgressComments([generation], service.requests.progressed_at)
    return InferenceStream(generation, comments, cancel=lambda: service.requests.cancel(request_id), began=began)


@router.delete("/v1/inference/{request_id}", status_code=204, response_class=Response)
async def cancel(worker: WorkerDep, request_id: str, response: Response) -> None:
    """Cancel a generation; one that is over or unknown is ignored.

    The header X-Rbee-Usage says what it took: tokens of the prompt, of these cached, of the answers, and microseconds
    of the engine.
    """
    ran = worker.service.requests.cancel(request_id)
    if ran:
        first = ran[0]
        generated, device_s = sum(one.generated for one in ran), sum(one.device_s for one in ran)
        response.headers[USAGE_HEADER] = usage_counts(len(first.prompt), first.cached_tokens, generated, device_s)


@router.get("/v1/slots")
async def slots(worker: WorkerDep) -> SlotsStatus:
    """Describe the slots."""
    return worker.service.slots()


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(worker: WorkerDep) -> Response:
    """Return the worker's metrics for Prometheus."""
    from rbee.daemonkit.prometheus import exposition  # its import would delay the start

    service = worker.service
    status = service.slots()
    free = status.slots_available
    content, media_type = exposition(
        "worker",
        {
            observed.WORKER_SLOTS: {("yes",): free, ("no",): status.slots_total - free},
            observed.WORKER_LOAD: service.load_s,
            observed.WORKER_MEMORY: resident_bytes(),
            observed.WORKER_CACHE: sum(slot.cached_tokens for slot in status.slots),
        },
    )
    return Response(content, media_type=media_type)


@router.post("/v1/admin/shutdown")
async def shutdown(worker: WorkerDep, body: JsonBody[WorkerShutdown | None] = None) -> WorkerStopReceipt:
    """Finish the running requests, free the model and exit; answer when that is done."""
    if body is not None and body.drain_s is not None:
        worker.service.drain_s = body.drain_s
    return await worker.drain.finish()


async def _loading(service: WorkerService) -> AsyncIterator[bytes]:
    async for progress in service.loading.follow():
        yield encode(progress)
    yield DONE


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    import psutil

    return int(psutil.Process(os.getpid()).memory_info().rss)
