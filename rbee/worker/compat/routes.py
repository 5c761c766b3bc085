"""The OpenAI- and Anthropic-compatible routes: parse and translate a request, start it, return its response."""

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
from rbee.daemonkit.dialects import Dialect
from rbee.errors import RbeeError
from rbee.worker import validation
from rbee.worker.compat import chat, completions, embeddings, messages, rerank, responses
from rbee.worker.compat.answer import Answer, ResponseWriter
from rbee.worker.compat.chat_params import ChatParams, generation_requests
from rbee.worker.compat.http_responses import JsonAnswer, StreamingAnswer
from rbee.worker.compat.tools import ToolCallFormat
from rbee.worker.deadline import read_deadline
from rbee.worker.generation_request import GenerationRequest
from rbee.worker.service import WorkerService

M = TypeVar("M", bound=BaseModel)
_FIELD: Final = re.compile(r"[a-z_][a-z0-9_]*|[0-9]+")
_UNION_MEMBERS: Final = frozenset({"str", "int", "list", "dict", "literal"})


async def answer_models(service: WorkerService, _request: Request) -> Response:
    """List the one model."""
    return _json(ModelCards(data=[ModelCard(id=service.settings.name, created=int(service.started_unix))]))


async def answer_chat(service: WorkerService, request: Request) -> Response:
    """Answer `/v1/chat/completions`."""
    body = await _parse(request, ChatRequest)
    _check_model(service, request, body.model)
    params = chat.to_chat_params(body)
    writer = chat.ChatResponseWriter(
        _id(request),
        body.model or service.settings.name,
        int(time.time()),
        choices=params.choices,
        include_usage=_includes_usage(body),
    )
    return await _respond_chat(service, request, params, writer, Dialect.OPENAI, stream=bool(body.stream))


async def answer_completions(service: WorkerService, request: Request) -> Response:
    """Answer `/v1/completions`."""
    body = await _parse(request, CompletionRequest)
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
    return await _respond(
        service, request, requests, writer, Dialect.OPENAI, stream=bool(body.stream), each=body.n or 1, echo=echo
    )


async def answer_responses(service: WorkerService, request: Request) -> Response:
    """Answer `/v1/responses`."""
    body = await _parse(request, ResponsesRequest)
    _check_model(service, request, body.model)
    writer = responses.ResponsesResponseWriter(_id(request), int(time.time()), body)
    return await _respond_chat(
        service, request, responses.to_chat_params(body), writer, Dialect.RESPONSES, stream=bool(body.stream)
    )


async def answer_messages(service: WorkerService, request: Request) -> Response:
    """Answer `/v1/messages`."""
    body = await _parse(request, MessagesRequest)
    _check_model(service, request, body.model)
    writer = messages.MessagesResponseWriter(_id(request), body.model or service.settings.name)
    return await _respond_chat(
        service, request, messages.to_chat_params(body), writer, Dialect.ANTHROPIC, stream=bool(body.stream)
    )


async def answer_count_tokens(service: WorkerService, request: Request) -> Response:
    """Count the tokens of a conversation, without evaluating it."""
    body = await _parse(request, CountTokensRequest)
    _check_model(service, request, body.model)
    _, tokenizer = service.require_engine()
    requests, _form = generation_requests(messages.to_chat_params(body), tokenizer.template)
    return _json(TokenCount(input_tokens=await tokenizer.count(requests[0])))


async def answer_embeddings(service: WorkerService, request: Request) -> Response:
    """Embed texts."""
    body = await _parse(request, EmbeddingRequest)
    _check_model(service, request, body.model)
    job = await service.requests.embed(embeddings.build_texts(body), _id(request))
    name = body.model or service.settings.name

    async def render() -> bytes:
        return await asyncio.to_thread(embeddings.render_body, body, name, await job.result(), job.tokens)

    return JsonAnswer(render, cancel=job.cancel, headers_first=ROUTED_HEADER in request.headers)


async def answer_rerank(service: WorkerService, request: Request) -> Response:
    """Sort documents by a query."""
    body = await _parse(request, RerankRequest)
    _check_model(service, request, body.model)
    request_id, name = _id(request), body.model or service.settings.name
    job = await service.requests.embed(rerank.build_pairs(body), request_id)

    async def render() -> bytes:
        relevances = [relevance for (relevance,) in await job.result()]
        return rerank.render_body(body, request_id, name, relevances, job.tokens)

    return JsonAnswer(render, cancel=job.cancel, headers_first=ROUTED_HEADER in request.headers)


ANSWERS: Final[dict[str, Callable[[WorkerService, Request], Awaitable[Response]]]] = {
    "/v1/models": answer_models,
    "/v1/chat/completions": answer_chat,
    "/v1/completions": answer_completions,
    "/v1/responses": answer_responses,
    "/v1/messages": answer_messages,
    "/v1/messages/count_tokens": answer_count_tokens,
    "/v1/embeddings": answer_embeddings,
    "/v1/rerank": answer_rerank,
}


async def _respond_chat(
    service: WorkerService,
    request: Request,
    params: ChatParams,
    writer: ResponseWriter,
    dialect: Dialect,
    *,
    stream: bool,
) -> Response:
    _, tokenizer = service.require_engine()
    requests, call_format = generation_requests(params, tokenizer.template)
    return await _respond(
        service, request, requests, writer, dialect, stream=stream, each=len(requests), call_format=call_format
    )


async def _respond(
    service: WorkerService,
    request: Request,
    requests: Sequence[GenerationRequest],
    writer: ResponseWriter,
    dialect: Dialect,
    *,
    stream: bool,
    each: int,
    call_format: ToolCallFormat | None = None,
    echo: Sequence[str] = (),
) -> Response:
    request_id = _id(request)
    generations = await service.requests.start(requests, request_id, deadline_s=read_deadline(request))
    answer = Answer(generations, call_format=call_format, each=each, echo=echo)

    def cancel() -> None:
        service.requests.cancel(request_id)

    async def render() -> bytes:
        return writer.complete(await answer.outcomes(), answer.usage)

    if stream:
        return StreamingAnswer(answer, writer, dialect, cancel=cancel)
    return JsonAnswer(render, cancel=cancel, headers_first=ROUTED_HEADER in request.headers)


async def _parse(request: Request, model: type[M]) -> M:
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        found: list[Any] = [
            {**item, "loc": _field_path(item["loc"])} for item in error.errors(include_url=False, include_context=False)
        ]
        raise errors.validation_error(found) from error


def _field_path(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Remove the parts that name a member of a union and not a field of the request."""
    return tuple(part for part in loc if _FIELD.fullmatch(str(part)) and part not in _UNION_MEMBERS)


def _check_model(service: WorkerService, request: Request, requested: str | None) -> None:
    """Refuse a name that is not this model's, unless the queen has resolved it already."""
    name = service.settings.name
    resolved = ROUTED_HEADER in request.headers or request.scope["state"]["client"] == TICKET
    if requested is None or resolved or requested in _names(name):
        return
    raise RbeeError(
        ErrorCode.MODEL_NOT_FOUND,
        f"This worker does not serve {requested!r}; it serves {name}.",
        param="model",
        details={"models": [name]},
        hint="Name the model that it serves, or params the queen, who knows all of them.",
    )


def _names(name: str) -> tuple[str, str, str]:
    """Return the accepted names of the model: its reference, its file name, that without the suffix."""
    file = PurePosixPath(name.partition("#")[0]).name
    return name, file, file.removesuffix(".gguf")


def _includes_usage(body: BaseGenerationRequest) -> bool:
    return body.stream_options is not None and bool(body.stream_options.include_usage)


def _id(request: Request) -> str:
    return errors.request_id_of(request) or new_id("req")


def _json(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")
