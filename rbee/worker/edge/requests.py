"""The routes of other people's clients: read a request, have it translated, begin it, give the answer to be sent."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
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
from rbee.errors import RbeeError
from rbee.worker import checks
from rbee.worker.deadline import deadline_of
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

M = TypeVar("M", bound=BaseModel)
_FIELD: Final = re.compile(r"[a-z_][a-z0-9_]*|[0-9]+")
_UNION_MEMBERS: Final = frozenset({"str", "int", "list", "dict", "literal"})


async def models(service: Service, _request: Request) -> Response:
    """List the one model."""
    return _json(ModelCards(data=[ModelCard(id=service.settings.name, created=int(service.started_unix))]))


async def chat(service: Service, request: Request) -> Response:
    """Chat as OpenAI's clients do."""
    wish = await _read(request, ChatRequest)
    _check_model(service, request, wish.model)
    ask = chats.ask_of(wish)
    dialect = chats.ChatDialect(
        _id(request),
        wish.model or service.settings.name,
        int(time.time()),
        choices=ask.choices,
        include_usage=_usage(wish),
    )
    return await _answered(service, request, ask, dialect, Kind.OPENAI, stream=bool(wish.stream))


async def completions(service: Service, request: Request) -> Response:
    """Continue a text as OpenAI's older clients do."""
    wish = await _read(request, CompletionRequest)
    _check_model(service, request, wish.model)
    engine, _ = service.loaded()
    wishes = completing.wishes_of(wish)
    checks.check_tokens(wishes, engine)
    echo = completing.echoes(wish, lambda tokens: b"".join(map(engine.piece, tokens)).decode("utf-8", "replace"))
    dialect = completing.CompletionDialect(
        _id(request),
        wish.model or service.settings.name,
        int(time.time()),
        choices=len(wishes),
        include_usage=_usage(wish),
    )
    return await _begun(
        service, request, wishes, dialect, Kind.OPENAI, stream=bool(wish.stream), each=wish.n or 1, echo=echo
    )


async def responses(service: Service, request: Request) -> Response:
    """Respond as OpenAI's newer clients want it."""
    wish = await _read(request, ResponsesRequest)
    _check_model(service, request, wish.model)
    dialect = responding.ResponsesDialect(_id(request), int(time.time()), wish)
    return await _answered(service, request, responding.ask_of(wish), dialect, Kind.RESPONSES, stream=bool(wish.stream))


async def messages(service: Service, request: Request) -> Response:
    """Chat as Anthropic's clients do."""
    wish = await _read(request, MessagesRequest)
    _check_model(service, request, wish.model)
    dialect = messaging.MessagesDialect(_id(request), wish.model or service.settings.name)
    return await _answered(service, request, messaging.ask_of(wish), dialect, Kind.ANTHROPIC, stream=bool(wish.stream))


async def count_tokens(service: Service, request: Request) -> Response:
    """Count the tokens of a conversation, without reading it."""
    wish = await _read(request, CountTokensRequest)
    _check_model(service, request, wish.model)
    _, prompts = service.loaded()
    wishes, _form = wishes_of(messaging.ask_of(wish), prompts.template)
    return _json(TokenCount(input_tokens=len(await prompts.all_tokens(wishes[0]))))


async def embeddings(service: Service, request: Request) -> Response:
    """Embed texts."""
    wish = await _read(request, EmbeddingRequest)
    _check_model(service, request, wish.model)
    vectors = await service.running.embed(embedding.texts_of(wish), _id(request))
    name = wish.model or service.settings.name

    async def whole() -> bytes:
        return await asyncio.to_thread(embedding.body_of, wish, name, await vectors.result(), vectors.tokens)

    return WholeAnswer(whole, cancel=vectors.cancel, early=ROUTED_HEADER in request.headers)


async def rerank(service: Service, request: Request) -> Response:
    """Sort documents by a query."""
    wish = await _read(request, RerankRequest)
    _check_model(service, request, wish.model)
    request_id, name = _id(request), wish.model or service.settings.name
    outputs = await service.running.embed(reranking.pairs_of(wish), request_id)

    async def whole() -> bytes:
        relevances = [relevance for (relevance,) in await outputs.result()]
        return reranking.body_of(wish, request_id, name, relevances, outputs.tokens)

    return WholeAnswer(whole, cancel=outputs.cancel, early=ROUTED_HEADER in request.headers)


ANSWERS: Final[dict[str, Callable[[Service, Request], Awaitable[Response]]]] = {
    "/v1/models": models,
    "/v1/chat/completions": chat,
    "/v1/completions": completions,
    "/v1/responses": responses,
    "/v1/messages": messages,
    "/v1/messages/count_tokens": count_tokens,
    "/v1/embeddings": embeddings,
    "/v1/rerank": rerank,
}


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


async def _read(request: Request, model: type[M]) -> M:
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        found: list[Any] = [
            {**item, "loc": _plain(item["loc"])} for item in error.errors(include_url=False, include_context=False)
        ]
        raise errors.validation_error(found) from error


def _plain(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Leave out what names a member of a union and no field of the request."""
    return tuple(part for part in loc if _FIELD.fullmatch(str(part)) and part not in _UNION_MEMBERS)


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


def _json(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")
