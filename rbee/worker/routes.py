"""The worker's HTTP routes."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from rbee import __version__
from rbee.contracts.tasks import InferenceRequest
from rbee.contracts.workers import ReadyStatus, SlotsStatus, WorkerHealth, WorkerStopReceipt
from rbee.daemonkit import errors
from rbee.daemonkit.dialects import COMPAT_ROUTES
from rbee.daemonkit.drain import Drain
from rbee.daemonkit.operations import Answer, Operation, Routes
from rbee.daemonkit.sse import DONE, EventStream, encode
from rbee.observe import metrics as observed
from rbee.worker.deadline import read_deadline
from rbee.worker.generation_request import from_inference_request
from rbee.worker.inference_stream import InferenceStream
from rbee.worker.service import WorkerService


@dataclass(frozen=True, slots=True)
class Worker:
    """What the routes work with."""

    service: WorkerService
    drain: Drain[WorkerStopReceipt]


routes = Routes[Worker]()


def operations(worker: Worker) -> list[Operation]:
    """Return the routes of one worker."""
    return [
        *routes.of(worker),
        Operation(
            "GET",
            "/v1/models",
            "The model, in OpenAI's format",
            _later(worker, "/v1/models"),
            response="rbee.contracts.models:ModelCards",
        ),
        *(
            Operation("POST", one.path, one.summary, _later(worker, one.path), one.body, response=Response)
            for one in COMPAT_ROUTES
        ),
    ]


def _later(worker: Worker, path: str) -> Answer:
    """Return the handler of an OpenAI- or Anthropic-compatible route, imported at its first request."""

    async def answer(request: Request) -> Response:
        from rbee.worker.compat import routes

        return await routes.ANSWERS[path](worker.service, request)

    return answer


@routes.get("/v1/health")
async def health(worker: Worker) -> WorkerHealth:
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


@routes.get("/v1/ready")
async def ready(worker: Worker, request: Request) -> ReadyStatus:
    """Return whether the model is loaded, and where to follow its loading."""
    loaded = worker.service.state.serves
    url = None if loaded else str(request.url.replace(path="/v1/loading/progress", query=""))
    return ReadyStatus(ready=loaded, state=worker.service.state, model_loaded=loaded, progress_url=url)


@routes.get("/v1/loading/progress")
async def loading(worker: Worker) -> EventStream:
    """Follow the loading of the model."""
    return EventStream(_loading(worker.service), until=worker.drain.closed)


@routes.post("/v1/inference")
async def infer(worker: Worker, body: InferenceRequest, request: Request) -> InferenceStream:
    """Generate tokens."""
    began = time.monotonic()
    service = worker.service
    request_id = body.request_id or errors.request_id_of(request) or ""
    (generation,) = await service.requests.start(
        [from_inference_request(body)], request_id, deadline_s=read_deadline(request)
    )
    return InferenceStream(generation, cancel=lambda: service.requests.cancel(request_id), began=began)


@routes.delete("/v1/inference/{request_id}")
async def cancel(worker: Worker, request_id: str) -> None:
    """Cancel a generation; one that is over or unknown is ignored."""
    worker.service.requests.cancel(request_id)


@routes.get("/v1/slots")
async def slots(worker: Worker) -> SlotsStatus:
    """Describe the slots."""
    return worker.service.slots()


@routes.get("/metrics")
async def metrics(worker: Worker) -> Response:
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


@routes.post("/v1/admin/shutdown")
async def shutdown(worker: Worker) -> WorkerStopReceipt:
    """Finish the running requests, free the model and exit; answer when that is done."""
    return await worker.drain.finish()


async def _loading(service: WorkerService) -> AsyncIterator[bytes]:
    async for progress in service.loading.follow():
        yield encode(progress)
    yield DONE


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    import psutil

    return int(psutil.Process(os.getpid()).memory_info().rss)
