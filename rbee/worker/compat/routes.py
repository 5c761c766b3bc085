"""The OpenAI- and Anthropic-compatible routes: parse and translate a request, start it, return its response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import PurePosixPath

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rbee.contracts.anthropic import CountTokensRequest, MessagesRequest, TokenCount
from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import IGNORED_HEADER, ROUTED_HEADER, new_id
from rbee.contracts.models import ModelCard, ModelCards
from rbee.contracts.openai import BaseGenerationRequest, ChatRequest, CompletionRequest, EmbeddingRequest
from rbee.contracts.rerank import RerankRequest
from rbee.contracts.responses import ResponsesRequest
from rbee.daemonkit import errors
from rbee.daemonkit.auth import TICKET
from rbee.daemonkit.json_body import JsonBody
from rbee.errors import RbeeError
from rbee.worker import validation
from rbee.worker.chat.answers import AnswerReader
from rbee.worker.compat import chat, completions, embeddings, messages, rerank, responses, responses_writer
from rbee.worker.compat.answer import Answer, ResponseWriter
from rbee.worker.compat.chat_answers import prepare
from rbee.worker.compat.chat_params import ChatParams
from rbee.worker.compat.http_responses import JsonAnswer, StreamingAnswer, header_text
from rbee.worker.deadline import read_deadline
from rbee.worker.dependencies import WorkerDep
from rbee.worker.generation_request import GenerationRequest
from rbee.worker.progress_comments import ProgressComments
from rbee.worker.service import WorkerService

router = APIRouter()


@router.get("/v1/models")
async def answer_models(worker: WorkerDep) -> ModelCards:
    """List the one model."""
    service = worker.service
    return ModelCards(data=[ModelCard(id=service.settings.name, created=int(service.started_unix))])


@router.get("/v1/models/{name:path}")
async def answer_model(worker: WorkerDep, name: str, request: Request) -> ModelCard:
    """Return the one model, by any of its names."""
    service = worker.service
    _check_model(service, request, name)
    return ModelCard(id=name, created=int(service.started_unix))


@router.post("/v1/chat/completions", response_class=Response)
async def answer_chat(worker: WorkerDep, body: JsonBody[ChatRequest], request: Request) -> Response:
    """Answer `/v1/chat/completions`."""
    service = worker.service
    _check_model(service, request, body.model)
    params = chat.to_chat_params(body)
    writer = chat.ChatResponseWriter(
        _id(request),
        body.model or service.settings.name,
        int(time.time()),
        choices=params.choices,
        include_usage=_includes_usage(body),
    )
    return await _respond_chat(service, request, params, writer, stream=bool(body.stream))


@router.post("/v1/completions", response_class=Response)
async def answer_completions(worker: WorkerDep, body: JsonBody[CompletionRequest], request: Request) -> Response:
    """Answer `/v1/completions`."""
    service = worker.service
    _check_model(service, request, body.model)
    engine, _ = service.require_engine()
    requests = completions.generation_requests(body)
    validation.check_tokens(requests, engine)
    echo = completions.echoes(body, lambda tokens: b"".join(map(engine.piece, tokens)).decode("utf-8", "replace"))
    writer = completions.CompletionResponseWriter(
        _id(request),
        body.model or service.settings.name,
        int(time.time()),
        choices=len(requests),
        include_usage=_includes_usage(body),
    )
    return await _respond(service, request, requests, writer, stream=bool(body.stream), each=body.n or 1, echo=echo)


@router.post("/v1/responses", response_class=Response)
async def answer_responses(worker: WorkerDep, body: JsonBody[ResponsesRequest], request: Request) -> Response:
    """Answer `/v1/responses`."""
    service = worker.service
    _check_model(service, request, body.model)
    writer = responses_writer.ResponsesResponseWriter(_id(request), int(time.time()), body)
    return await _respond_chat(service, request, responses.to_chat_params(body), writer, stream=bool(body.stream))


@router.post("/v1/messages", response_class=Response)
async def answer_messages(worker: WorkerDep, body: JsonBody[MessagesRequest], request: Request) -> Response:
    """Answer `/v1/messages`."""
    service = worker.service
    _check_model(service, request, body.model)
    writer = messages.MessagesResponseWriter(_id(request), body.model or service.settings.name)
    return await _respond_chat(service, request, messages.to_chat_params(body), writer, stream=bool(body.stream))


@router.post("/v1/messages/count_tokens")
async def answer_count_tokens(worker: WorkerDep, body: JsonBody[CountTokensRequest], request: Request) -> TokenCount:
    """Count the tokens of a conversation, without evaluating it."""
    service = worker.service
    _check_model(service, request, body.model)
    _, tokenizer = service.require_engine()
    rendered = await tokenizer.render(messages.to_chat_params(body).conversation, param="messages", answer=False)
    return TokenCount(input_tokens=len(rendered.tokens))


@router.post("/v1/embeddings", response_class=Response)
async def answer_embeddings(worker: WorkerDep, body: JsonBody[EmbeddingRequest], request: Request) -> Response:
    """Embed texts."""
    service = worker.service
    _check_model(service, request, body.model)
    job = await service.requests.embed(embeddings.build_texts(body), _id(request))
    name = body.model or service.settings.name

    async def render() -> bytes:
        return await asyncio.to_thread(embeddings.render_body, body, name, await job.result(), job.tokens)

    return JsonAnswer(render, cancel=job.cancel, headers_first=ROUTED_HEADER in request.headers)


@router.post("/v1/rerank", response_class=Response)
async def answer_rerank(worker: WorkerDep, body: JsonBody[RerankRequest], request: Request) -> Response:
    """Sort documents by a query."""
    service = worker.service
    _check_model(service, request, body.model)
    request_id, name = _id(request), body.model or service.settings.name
    job = await service.requests.embed(rerank.build_pairs(body), request_id)

    async def render() -> bytes:
        relevances = [relevance for (relevance,) in await job.result()]
        return rerank.render_body(body, request_id, name, relevances, job.tokens)

    return JsonAnswer(render, cancel=job.cancel, headers_first=ROUTED_HEADER in request.headers)


async def _respond_chat(
    service: WorkerService, request: Request, params: ChatParams, writer: ResponseWriter, *, stream: bool
) -> Response:
    engine, tokenizer = service.require_engine()
    prepared = await prepare(params, tokenizer, engine)
    response = await _respond(
        service,
        request,
        prepared.requests,
        writer,
        stream=stream,
        each=len(prepared.requests),
        readers=prepared.readers(),
        stops=prepared.stops,
    )
    constraint = prepared.requests[0].constraint
    ignored = (*params.ignored, *(() if constraint is None else service.requests.unheld(constraint)))
    if ignored:
        response.headers[IGNORED_HEADER] = header_text(ignored)
    return response


async def _respond(
    service: WorkerService,
    request: Request,
    requests: Sequence[GenerationRequest],
    writer: ResponseWriter,
    *,
    stream: bool,
    each: int,
    readers: Sequence[AnswerReader | None] = (),
    stops: Sequence[str] = (),
    echo: Sequence[str] = (),
) -> Response:
    request_id = _id(request)
    generations = await service.requests.start(requests, request_id, each=each, deadline_s=read_deadline(request))
    answer = Answer(generations, readers=readers, stops=stops, each=each, echo=echo)

    def cancel() -> None:
        service.requests.cancel(request_id)

    async def render() -> bytes:
        return writer.complete(await answer.outcomes(), answer.usage)

    if stream:
        comments = ProgressComments(generations, service.requests.progressed_at)
        return StreamingAnswer(answer, writer, comments, cancel=cancel, count=ROUTED_HEADER in request.headers)
    return JsonAnswer(render, cancel=cancel, headers_first=ROUTED_HEADER in request.headers)


def _check_model(service: WorkerService, request: Request, requested: str | None) -> None:
    """Refuse a name that is not this model's, unless the queen has resolved it already."""
    name = service.settings.name
    resolved = ROUTED_HEADER in request.headers or request.scope["state"]["client"] == TICKET.name
    if requested is None or resolved or requested in _names(name):
        return
    raise RbeeError(
        ErrorCode.MODEL_NOT_FOUND,
        f"This worker does not serve {requested!r}; it serves {name}.",
        param="model",
        details={"models": [name]},
        hint="Name the model that it serves, or ask the queen, which knows all of them.",
    )


def _names(name: str) -> tuple[str, str, str]:
    """Return the accepted names of the model: its reference, its file name, that without the suffix."""
    file = PurePosixPath(name.partition("#")[0]).name
    return name, file, file.removesuffix(".gguf")


def _includes_usage(body: BaseGenerationRequest) -> bool:
    return body.stream_options is not None and bool(body.stream_options.include_usage)


def _id(request: Request) -> str:
    return errors.request_id_of(request) or new_id("req")
