"""The OpenAI- and Anthropic-compatible routes: parse and translate a request, start it, return its response."""

from __future__ import annotations

import time
from functools import partial

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rbee.contracts.anthropic import CountTokensRequest, MessagesRequest, TokenCount
from rbee.contracts.models import ModelCard, ModelCards
from rbee.contracts.openai import BaseGenerationRequest, ChatRequest, CompletionRequest, EmbeddingRequest
from rbee.contracts.rerank import RerankRequest
from rbee.contracts.responses import ResponsesRequest
from rbee.daemonkit.json_body import JsonBody
from rbee.worker import validation
from rbee.worker.compat import chat, completions, embeddings, messages, rerank, responses, responses_writer
from rbee.worker.compat.responding import check_model, id_of, listed_model, respond, respond_chat, respond_vectors
from rbee.worker.dependencies import WorkerDep

router = APIRouter()


@router.get("/models")
@router.get("/v1/models")
async def answer_models(worker: WorkerDep) -> ModelCards:
    """List the one model."""
    service = worker.service
    return ModelCards(data=[listed_model(service, service.settings.name).card()])


@router.get("/v1/models/{name:path}")
async def answer_model(worker: WorkerDep, name: str, request: Request) -> ModelCard:
    """Return the one model, by any of its names."""
    service = worker.service
    check_model(service, request, name)
    return listed_model(service, name).card()


@router.post("/v1/chat/completions", response_class=Response)
async def answer_chat(worker: WorkerDep, body: JsonBody[ChatRequest], request: Request) -> Response:
    """Answer `/v1/chat/completions`."""
    service = worker.service
    check_model(service, request, body.model)
    params = chat.to_chat_params(body)
    writer = chat.ChatResponseWriter(
        id_of(request),
        body.model or service.settings.name,
        int(time.time()),
        choices=params.choices,
        include_usage=_includes_usage(body),
    )
    return await respond_chat(service, request, params, writer, stream=bool(body.stream))


@router.post("/v1/completions", response_class=Response)
async def answer_completions(worker: WorkerDep, body: JsonBody[CompletionRequest], request: Request) -> Response:
    """Answer `/v1/completions`."""
    service = worker.service
    check_model(service, request, body.model)
    engine, _ = service.require_engine()
    requests = completions.generation_requests(body)
    validation.check_tokens(requests, engine)
    echo = completions.echoes(body, lambda tokens: b"".join(map(engine.piece, tokens)).decode("utf-8", "replace"))
    writer = completions.CompletionResponseWriter(
        id_of(request),
        body.model or service.settings.name,
        int(time.time()),
        choices=len(requests),
        include_usage=_includes_usage(body),
    )
    return await respond(service, request, requests, writer, stream=bool(body.stream), each=body.n or 1, echo=echo)


@router.post("/v1/responses", response_class=Response)
async def answer_responses(worker: WorkerDep, body: JsonBody[ResponsesRequest], request: Request) -> Response:
    """Answer `/v1/responses`."""
    service = worker.service
    check_model(service, request, body.model)
    name = body.model or service.settings.name
    writer = responses_writer.ResponsesResponseWriter(id_of(request), name, int(time.time()), body)
    return await respond_chat(service, request, responses.to_chat_params(body), writer, stream=bool(body.stream))


@router.post("/v1/messages", response_class=Response)
async def answer_messages(worker: WorkerDep, body: JsonBody[MessagesRequest], request: Request) -> Response:
    """Answer `/v1/messages`."""
    service = worker.service
    check_model(service, request, body.model)
    writer = messages.MessagesResponseWriter(id_of(request), body.model or service.settings.name)
    return await respond_chat(service, request, messages.to_chat_params(body), writer, stream=bool(body.stream))


@router.post("/v1/messages/count_tokens")
async def answer_count_tokens(worker: WorkerDep, body: JsonBody[CountTokensRequest], request: Request) -> TokenCount:
    """Count the tokens of a conversation, without evaluating it."""
    service = worker.service
    check_model(service, request, body.model)
    _, tokenizer = service.require_engine()
    rendered = await tokenizer.render(messages.to_chat_params(body).conversation, param="messages", answer=False)
    return TokenCount(input_tokens=len(rendered.tokens))


@router.post("/v1/embeddings", response_class=Response)
async def answer_embeddings(worker: WorkerDep, body: JsonBody[EmbeddingRequest], request: Request) -> Response:
    """Embed texts."""
    service = worker.service
    check_model(service, request, body.model)
    name = body.model or service.settings.name
    render = partial(embeddings.render_body, body, name)
    return await respond_vectors(service, request, embeddings.build_texts(body.input), render)


@router.post("/v1/rerank", response_class=Response)
async def answer_rerank(worker: WorkerDep, body: JsonBody[RerankRequest], request: Request) -> Response:
    """Sort documents by a query."""
    service = worker.service
    check_model(service, request, body.model)
    render = partial(rerank.render_body, body, id_of(request), body.model or service.settings.name)
    return await respond_vectors(service, request, rerank.build_pairs(body), render)


def _includes_usage(body: BaseGenerationRequest) -> bool:
    return body.stream_options is not None and bool(body.stream_options.include_usage)
