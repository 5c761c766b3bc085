"""The worker's HTTP routes, on Starlette alone: FastAPI's import would double the time to a healthy worker."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rbee import __version__
from rbee.contracts.tasks import InferenceRequest
from rbee.contracts.workers import ReadyStatus, SlotsStatus, WorkerHealth, WorkerStopReceipt
from rbee.daemonkit import errors
from rbee.daemonkit.drain import Drain
from rbee.daemonkit.sse import DONE, EventStream, encode
from rbee.worker.deadline import deadline_of
from rbee.worker.figures import figures
from rbee.worker.service import Service
from rbee.worker.stream import InferenceStream
from rbee.worker.wish import wish_of

Answer = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One route as its users see it; `request` and `response` are the bodies, None for a stream or nothing.

    A body may be named as `module:Model`: it is then loaded by whoever needs it.
    """

    method: str
    path: str
    summary: str
    answer: Answer
    request: type[BaseModel] | str | None = None
    response: type[BaseModel] | str | None = None


def build(service: Service, drain: Drain[WorkerStopReceipt]) -> Starlette:
    """Make the application of one worker."""
    operations = Routes(service, drain).operations()

    async def openapi(_request: Request) -> Response:
        from rbee.worker.openapi import describe  # nobody waits for it at the start

        return JSONResponse(describe(operations))

    routes = [Route(one.path, one.answer, methods=[one.method]) for one in operations]
    app = Starlette(routes=[*routes, Route("/openapi.json", openapi)])
    errors.install(app)
    return app


class Routes:
    """What each route does."""

    def __init__(self, service: Service, drain: Drain[WorkerStopReceipt]) -> None:
        self._service = service
        self._drain = drain

    def operations(self) -> list[Operation]:
        """List the routes."""
        return [
            Operation("GET", "/v1/health", "How the worker is", self.health, response=WorkerHealth),
            Operation("GET", "/v1/ready", "Whether its model is loaded", self.ready, response=ReadyStatus),
            Operation("GET", "/v1/loading/progress", "Follow the loading of the model", self.loading),
            Operation("POST", "/v1/inference", "Generate tokens", self.infer, request=InferenceRequest),
            Operation("DELETE", "/v1/inference/{request_id}", "Stop a generation", self.cancel),
            Operation("GET", "/v1/slots", "Its slots", self.slots, response=SlotsStatus),
            *self._edge(),
            Operation("GET", "/metrics", "Its figures, for Prometheus", self.metrics),
            Operation(
                "POST",
                "/v1/admin/shutdown",
                "Finish what runs, free the model, end",
                self.shutdown,
                None,
                WorkerStopReceipt,
            ),
        ]

    def _edge(self) -> list[Operation]:
        """List the routes of other people's clients."""
        models = "rbee.contracts.models:ModelCards"
        return [
            Operation(
                "GET", "/v1/models", "The model, as OpenAI's clients ask for it", self._later("models"), None, models
            ),
            *(
                Operation("POST", path, summary, self._later(name), f"rbee.contracts.{request}")
                for path, summary, name, request in (
                    ("/v1/chat/completions", "Chat, as with OpenAI", "chat", "openai:ChatRequest"),
                    ("/v1/completions", "Continue a text, as with OpenAI", "completions", "openai:CompletionRequest"),
                    ("/v1/embeddings", "Embed texts, as with OpenAI", "embeddings", "openai:EmbeddingRequest"),
                    (
                        "/v1/rerank",
                        "Sort documents by a query, as with Jina or Cohere",
                        "rerank",
                        "rerank:RerankRequest",
                    ),
                    ("/v1/responses", "Respond, as with OpenAI", "responses", "responses:ResponsesRequest"),
                    ("/v1/messages", "Chat, as with Anthropic", "messages", "anthropic:MessagesRequest"),
                    (
                        "/v1/messages/count_tokens",
                        "Count tokens, as with Anthropic",
                        "count_tokens",
                        "anthropic:CountTokensRequest",
                    ),
                )
            ),
        ]

    def _later(self, name: str) -> Answer:
        """Give what answers a route of the edge, imported at its first request: a start does not wait for it."""

        async def answer(request: Request) -> Response:
            from rbee.worker.edge import requests

            return await requests.ANSWERS[name](self._service, request)

        return answer

    async def health(self, _request: Request) -> Response:
        """Tell that the worker lives, in which state it is, and whether a request is stalled."""
        service, settings = self._service, self._service.settings
        return _json(
            WorkerHealth(
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
        )

    async def ready(self, request: Request) -> Response:
        """Tell whether the model is loaded, and where to follow its loading."""
        loaded = self._service.state.serves
        url = None if loaded else str(request.url.replace(path="/v1/loading/progress", query=""))
        status = ReadyStatus(ready=loaded, state=self._service.state, model_loaded=loaded, progress_url=url)
        return _json(status, with_none=False)

    async def loading(self, _request: Request) -> Response:
        """Follow the loading of the model."""
        return EventStream(_loading(self._service), until=self._drain.closed)

    async def infer(self, request: Request) -> Response:
        """Generate tokens."""
        began = time.monotonic()
        try:
            wish = InferenceRequest.model_validate_json(await request.body())
        except ValidationError as error:
            raise errors.validation_error(list(error.errors(include_url=False))) from error
        request_id = wish.request_id or errors.request_id_of(request) or ""
        (generation,) = await self._service.begin([wish_of(wish)], request_id, deadline_s=deadline_of(request))
        return InferenceStream(generation, cancel=lambda: self._service.cancel(request_id), began=began)

    async def cancel(self, request: Request) -> Response:
        """Stop a generation; once more, or one that is over, is fine."""
        self._service.cancel(request.path_params["request_id"])
        return Response(status_code=204)

    async def slots(self, _request: Request) -> Response:
        """Describe the slots."""
        return _json(self._service.slots())

    async def metrics(self, _request: Request) -> Response:
        """Give the figures."""
        body, media_type = figures(self._service, resident_bytes())
        return Response(body, media_type=media_type)

    async def shutdown(self, _request: Request) -> Response:
        """End the worker; answers when that is done."""
        return _json(await self._drain.finish())


def _json(model: BaseModel, *, with_none: bool = True) -> Response:
    return Response(model.model_dump_json(exclude_none=not with_none), media_type="application/json")


async def _loading(service: Service) -> AsyncIterator[bytes]:
    async for progress in service.loading.follow():
        yield encode(progress)
    yield DONE


def resident_bytes() -> int:
    """Measure the memory that this process holds."""
    import psutil

    return int(psutil.Process(os.getpid()).memory_info().rss)
