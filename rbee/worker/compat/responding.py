"""Answer the requests of every compatible interface: start their generations, and send what a writer makes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from starlette.requests import Request
from starlette.responses import Response

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import IGNORED_HEADER, ROUTED_HEADER, new_id
from rbee.daemonkit import errors
from rbee.daemonkit.auth import TICKET
from rbee.daemonkit.dialects import LATEST, Dialect
from rbee.daemonkit.model_lists import ListedModel
from rbee.errors import RbeeError
from rbee.worker.chat.answers import AnswerReader
from rbee.worker.compat.answer import Answer, ResponseWriter, Usage
from rbee.worker.compat.chat_answers import prepare
from rbee.worker.compat.chat_params import ChatParams
from rbee.worker.compat.http_responses import JsonAnswer, StreamingAnswer, header_text
from rbee.worker.deadline import read_deadline
from rbee.worker.generation_request import GenerationRequest
from rbee.worker.progress_comments import ProgressComments
from rbee.worker.service import WorkerService


async def respond_chat(
    service: WorkerService,
    request: Request,
    params: ChatParams,
    writer: ResponseWriter,
    *,
    stream: bool,
    dialect: Dialect = Dialect.OPENAI,
) -> Response:
    """Answer a chat. Raises RbeeError as `prepare` and `ActiveRequests.start` do."""
    engine, tokenizer = service.require_engine()
    prepared = await prepare(params, tokenizer, engine)
    return await respond(
        service,
        request,
        prepared.requests,
        writer,
        stream=stream,
        each=len(prepared.requests),
        dialect=dialect,
        readers=prepared.readers(),
        stops=prepared.stops,
        ignored=params.ignored,
    )


async def respond(
    service: WorkerService,
    request: Request,
    requests: Sequence[GenerationRequest],
    writer: ResponseWriter,
    *,
    stream: bool,
    each: int,
    dialect: Dialect = Dialect.OPENAI,
    readers: Sequence[AnswerReader | None] = (),
    stops: Sequence[str] = (),
    echo: Sequence[str] = (),
    ignored: Sequence[str] = (),
) -> Response:
    """Answer with generations; *ignored* is what the request has and the answer does not heed.

    Raises RbeeError as `ActiveRequests.start` does.
    """
    request_id, routed = id_of(request), ROUTED_HEADER in request.headers
    generations = await service.requests.start(requests, request_id, each=each, deadline_s=read_deadline(request))
    answer = Answer(generations, readers=readers, stops=stops, each=each, echo=echo)

    def cancel() -> None:
        service.requests.cancel(request_id)

    async def render() -> tuple[bytes, Usage]:
        outcomes, usage = await answer.outcomes(), answer.usage
        return writer.complete(outcomes, usage), usage

    response: Response
    if stream:
        comments = ProgressComments(generations, service.requests.progressed_at)
        response = StreamingAnswer(answer, writer, comments, cancel=cancel, count=routed, dialect=dialect)
    else:
        response = JsonAnswer(render, cancel=cancel, routed=routed)
    constraint = requests[0].constraint
    name_ignored(response, (*ignored, *(() if constraint is None else service.requests.unheld(constraint))))
    return response


async def respond_vectors(
    service: WorkerService,
    request: Request,
    texts: Sequence[GenerationRequest],
    render: Callable[[Sequence[Sequence[float]], int], bytes],
) -> Response:
    """Answer with what *render* makes, in a thread, of the vectors of *texts* and the number of their tokens.

    Raises RbeeError as `ActiveRequests.embed` does.
    """
    job = await service.requests.embed(texts, id_of(request))

    async def rendered() -> tuple[bytes, Usage]:
        body = await asyncio.to_thread(render, await job.result(), job.tokens)
        return body, Usage(job.tokens, 0, 0, device_s=job.device_s)

    return JsonAnswer(rendered, cancel=job.cancel, routed=ROUTED_HEADER in request.headers)


def name_ignored(response: Response, ignored: Sequence[str]) -> None:
    """Name in a header what the request has and the answer does not heed."""
    if ignored:
        response.headers[IGNORED_HEADER] = header_text(ignored)


def check_model(service: WorkerService, request: Request, requested: str | None) -> None:
    """Refuse a name that is not this model's, unless the queen has resolved it already."""
    name = service.settings.name
    resolved = ROUTED_HEADER in request.headers or request.scope["state"]["client"] == TICKET.name
    if requested is None or resolved or requested.removesuffix(LATEST) in _names(name):
        return
    raise RbeeError(
        ErrorCode.MODEL_NOT_FOUND,
        f"This worker does not serve {requested!r}; it serves {name}.",
        param="model",
        details={"models": [name]},
        hint="Name the model that it serves, or ask the queen, which knows all of them.",
    )


def listed_model(service: WorkerService, name: str) -> ListedModel:
    """Describe the one model by *name*."""
    facts = service.facts
    known = ListedModel(name, service.started_unix, capabilities=service.capabilities)
    if facts is None:
        return replace(known, state="loading")
    return replace(
        known,
        state="loaded",
        size_bytes=facts.size_bytes,
        architecture=facts.description.partition(" ")[0],
        context_length=facts.context,
        train_context=facts.train_context,
    )


def _names(name: str) -> tuple[str, str, str]:
    """Return the accepted names of the model: its reference, its file name, that without the suffix."""
    file = PurePosixPath(name.partition("#")[0]).name
    return name, file, file.removesuffix(".gguf")


def id_of(request: Request) -> str:
    """Return the id of a request."""
    return errors.request_id_of(request) or new_id("req")
