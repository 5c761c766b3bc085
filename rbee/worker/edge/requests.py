"""The routes of other people's clients: read a request, have it translated, begin it, give the answer to be sent."""

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
from rbee.contracts.ids import ROUTED_HEADER, new_id
from rbee.contracts.models import ModelCard, ModelCards
from rbee.contracts.openai import BaseGenerationRequest, ChatRequest, CompletionRequest, EmbeddingRequest
from rbee.contracts.rerank import RerankRequest
from rbee.contracts.responses import ResponsesRequest
from rbee.daemonkit import errors
from rbee.daemonkit.auth import TICKET
from rbee.daemonkit.dialects import Dialect as Kind
from rbee.daemonkit.json_body import JsonBody
from rbee.errors import RbeeError
from rbee.worker import checks
from rbee.worker.deadline import deadline_of
from rbee.worker.dependencies import WorkerDep
from rbee.worker.edge import chat as chats
from rbee.worker.edge import completions as completing
from rbee.worker.edge import embedding, reranking
from rbee.worker.edge import messages as messaging
from rbee.worker.edge import responses as responding
from rbee.worker.edge.answer import Answer, Dialect
from rbee.worker.edge.ask import Ask, wishes_of
from rbee.worker.edge.serving import StreamedAnswer, WholeAnswer
from rbee.worker.edge.tools import CallForm
from rbee.worker.service import Service
from rbee.worker.wish import Wish

router = APIRouter()


@router.get("/v1/models")
async def models(worker: WorkerDep) -> ModelCards:
    """List the one model."""
    service = worker.service
    return ModelCards(data=[ModelCard(id=service.settings.name, created=int(service.started_unix))])


@router.post("/v1/chat/completions", response_class=Response)
async def chat(worker: WorkerDep, body: JsonBody[ChatRequest], request: Request) -> Response:
    """Chat as OpenAI's clients do."""
    service = worker.service
    _check_model(service, request, body.model)
    ask = chats.ask_of(body)
    dialect = chats.ChatDialect(
        _id(request),
        body.model or service.settings.name,
        int(time.time()),
        choices=ask.choices,
        include_usage=_usage(body),
    )
    return await _answered(service, request, ask, dialect, Kind.OPENAI, stream=bool(body.stream))


@router.post("/v1/completions", response_class=Response)
async def completions(worker: WorkerDep, body: JsonBody[CompletionRequest], request: Request) -> Response:
    """Continue a text as OpenAI's older clients do."""
    service = worker.service
    _check_model(service, request, body.model)
    engine, _ = service.loaded()
    wishes = completing.wishes_of(body)
    checks.check_tokens(wishes, engine)
    echo = completing.echoes(body, lambda tokens: b"".join(map(engine.piece, tokens)).decode("utf-8", "replace"))
    dialect = completing.CompletionDialect(
        _id(request),
        body.model or service.settings.name,
        int(time.time()),
        choices=len(wishes),
        include_usage=_usage(body),
    )
    return await _begun(
        service, request, wishes, dialect, Kind.OPENAI, stream=bool(body.stream), each=body.n or 1, echo=echo
    )


@router.post("/v1/responses", response_class=Response)
async def responses(worker: WorkerDep, body: JsonBody[ResponsesRequest], request: Request) -> Response:
    """Respond as OpenAI's newer clients want it."""
    service = worker.service
    _check_model(service, request, body.model)
    dialect = responding.ResponsesDialect(_id(request), int(time.time()), body)
    return await _answered(service, request, responding.ask_of(body), dialect, Kind.RESPONSES, stream=bool(body.stream))


@router.post("/v1/messages", response_class=Response)
async def messages(worker: WorkerDep, body: JsonBody[MessagesRequest], request: Request) -> Response:
    """Chat as Anthropic's clients do."""
    service = worker.service
    _check_model(service, request, body.model)
    dialect = messaging.MessagesDialect(_id(request), body.model or service.settings.name)
    return await _answered(service, request, messaging.ask_of(body), dialect, Kind.ANTHROPIC, stream=bool(body.stream))


@router.post("/v1/messages/count_tokens")
async def count_tokens(worker: WorkerDep, body: JsonBody[CountTokensRequest], request: Request) -> TokenCount:
    """Count the tokens of a conversation, without reading it."""
    service = worker.service
    _check_model(service, request, body.model)
    _, prompts = service.loaded()
    wishes, _form = wishes_of(messaging.ask_of(body), prompts.template)
    return TokenCount(input_tokens=len(await prompts.all_tokens(wishes[0])))


@router.post("/v1/embeddings", response_class=Response)
async def embeddings(worker: WorkerDep, body: JsonBody[EmbeddingRequest], request: Request) -> Response:
    """Embed texts."""
    service = worker.service
    _check_model(service, request, body.model)
    vectors = await service.running.embed(embedding.texts_of(body), _id(request))
    name = body.model or service.settings.name

    async def whole() -> bytes:
        return await asyncio.to_thread(embedding.body_of, body, name, await vectors.result(), vectors.tokens)

    return WholeAnswer(whole, cancel=vectors.cancel, early=ROUTED_HEADER in request.headers)


@router.post("/v1/rerank", response_class=Response)
async def rerank(worker: WorkerDep, body: JsonBody[RerankRequest], request: Request) -> Response:
    """Sort documents by a query."""
    service = worker.service
    _check_model(service, request, body.model)
    request_id, name = _id(request), body.model or service.settings.name
    outputs = await service.running.embed(reranking.pairs_of(body), request_id)

    async def whole() -> bytes:
        relevances = [relevance for (relevance,) in await outputs.result()]
        return reranking.body_of(body, request_id, name, relevances, outputs.tokens)

    return WholeAnswer(whole, cancel=outputs.cancel, early=ROUTED_HEADER in request.headers)


async def _answered(
    service: Service, request: Request, ask: Ask, dialect: Dialect, kind: Kind, *, stream: bool
) -> Response:
    _, prompts = service.loaded()
    wishes, form = wishes_of(ask, prompts.template)
    return await _begun(service, request, wishes, dialect, kind, stream=stream, each=len(wishes), form=form)


async def _begun(
    service: Service,
    request: Request,
    wishes: Sequence[Wish],
    dialect: Dialect,
    kind: Kind,
    *,
    stream: bool,
    each: int,
    form: CallForm | None = None,
    echo: Sequence[str] = (),
) -> Response:
    request_id = _id(request)
    generations = await service.running.begin(wishes, request_id, deadline_s=deadline_of(request))
    answer = Answer(generations, form=form, each=each, echo=echo)

    def cancel() -> None:
        service.running.cancel(request_id)

    async def whole() -> bytes:
        return dialect.whole(await answer.outcomes(), answer.usage)

    if stream:
        return StreamedAnswer(answer, dialect, kind, cancel=cancel)
    return WholeAnswer(whole, cancel=cancel, early=ROUTED_HEADER in request.headers)


def _check_model(service: Service, request: Request, asked: str | None) -> None:
    """Refuse a name that is not this model's; who has found the worker by name has checked it already."""
    name = service.settings.name
    sent = ROUTED_HEADER in request.headers or request.scope["state"]["client"] == TICKET
    if asked is None or sent or asked in _names(name):
        return
    raise RbeeError(
        ErrorCode.MODEL_NOT_FOUND,
        f"This worker has no model {asked!r}; it serves {name}.",
        param="model",
        details={"models": [name]},
        hint="Name the model that it serves, or ask the queen, who knows all of them.",
    )


def _names(name: str) -> tuple[str, str, str]:
    """Give what the model may be called: its reference, the name of its file, that without the ending."""
    file = PurePosixPath(name.partition("#")[0]).name
    return name, file, file.removesuffix(".gguf")


def _usage(wish: BaseGenerationRequest) -> bool:
    return wish.stream_options is not None and bool(wish.stream_options.include_usage)


def _id(request: Request) -> str:
    return errors.request_id_of(request) or new_id("req")
