"""Ollama's routes at a worker, which knows one model."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rbee import __version__
from rbee.contracts.ollama import (
    EmbedRequest,
    GenerateRequest,
    NamedModelRequest,
    OllamaChatRequest,
    OllamaError,
    OllamaVersion,
    PromptEmbedRequest,
    RunningModels,
    ShownModel,
    TaggedModels,
    TextRequest,
)
from rbee.daemonkit import ollama_lists
from rbee.daemonkit.dialects import Dialect
from rbee.daemonkit.json_body import JsonBody
from rbee.daemonkit.json_lines import load_line
from rbee.worker.compat import embeddings, ollama, ollama_writer
from rbee.worker.compat.responding import (
    check_model,
    listed_model,
    name_ignored,
    respond,
    respond_chat,
    respond_vectors,
)
from rbee.worker.dependencies import WorkerDep
from rbee.worker.service import WorkerService

router = APIRouter(responses={"default": {"model": OllamaError, "description": "Any failure"}})


@router.post("/api/chat", response_class=Response)
async def answer_chat(worker: WorkerDep, body: JsonBody[OllamaChatRequest], request: Request) -> Response:
    """Answer `/api/chat`."""
    service = worker.service
    check_model(service, request, body.model)
    if not body.messages:
        return _loaded(service, body, request)
    writer = ollama_writer.OllamaResponseWriter("chat", body.model or service.settings.name)
    params, stream = ollama.to_chat_params(body), body.stream is not False
    return await respond_chat(service, request, params, writer, stream=stream, dialect=Dialect.OLLAMA)


@router.post("/api/generate", response_class=Response)
async def answer_generate(worker: WorkerDep, body: JsonBody[GenerateRequest], request: Request) -> Response:
    """Answer `/api/generate`."""
    service = worker.service
    check_model(service, request, body.model)
    if not body.prompt:
        return _loaded(service, body, request)
    writer, stream = ollama_writer.OllamaResponseWriter("generate", body.model or service.settings.name), body.stream
    if not body.raw:
        params = ollama.generate_params(body)
        return await respond_chat(service, request, params, writer, stream=stream is not False, dialect=Dialect.OLLAMA)
    return await respond(
        service,
        request,
        [ollama.raw_generation(body)],
        writer,
        stream=stream is not False,
        each=1,
        dialect=Dialect.OLLAMA,
        ignored=ollama.ignored_fields(body),
    )


@router.post("/api/embed", response_class=Response)
async def answer_embed(worker: WorkerDep, body: JsonBody[EmbedRequest], request: Request) -> Response:
    """Answer `/api/embed`."""
    service, began = worker.service, time.monotonic()
    check_model(service, request, body.model)
    name = body.model or service.settings.name

    def render(vectors: Sequence[Sequence[float]], tokens: int) -> bytes:
        cut = embeddings.with_dimensions(vectors, body.dimensions or None)
        return ollama_writer.embedded(name, cut, tokens, time.monotonic() - began)

    response = await respond_vectors(service, request, embeddings.build_texts(body.input), render)
    name_ignored(response, ollama.ignored_fields(body))
    return response


@router.post("/api/embeddings", response_class=Response)
async def answer_prompt_embed(worker: WorkerDep, body: JsonBody[PromptEmbedRequest], request: Request) -> Response:
    """Answer `/api/embeddings`."""
    service = worker.service
    check_model(service, request, body.model)
    texts = embeddings.build_texts(body.prompt, "prompt")
    response = await respond_vectors(service, request, texts, ollama_writer.embedded_one)
    name_ignored(response, ollama.ignored_fields(body))
    return response


@router.get("/api/version")
async def answer_version() -> OllamaVersion:
    """Return the version of Ollama whose interface this is."""
    return OllamaVersion(rbee_version=__version__)


@router.get("/api/tags")
async def answer_tags(worker: WorkerDep) -> TaggedModels:
    """List the one model."""
    service = worker.service
    return TaggedModels(models=[ollama_lists.tagged(listed_model(service, service.settings.name))])


@router.get("/api/ps")
async def answer_ps(worker: WorkerDep) -> RunningModels:
    """List the one model, once it is loaded; it is when its hive ends the worker that it ends."""
    service, facts = worker.service, worker.service.facts
    if facts is None:
        return RunningModels(models=[])
    known = listed_model(service, service.settings.name)
    return RunningModels(models=[ollama_lists.running(known, expires=None, device_bytes=facts.device_bytes or 0)])


@router.post("/api/show")
async def answer_show(worker: WorkerDep, body: JsonBody[NamedModelRequest], request: Request) -> ShownModel:
    """Describe the one model, by any of its names."""
    service = worker.service
    check_model(service, request, body.wanted)
    facts = service.facts
    known = listed_model(service, body.wanted or service.settings.name)
    return ollama_lists.shown(known, template=(facts.chat_template or "") if facts is not None else "")


def _loaded(service: WorkerService, body: TextRequest, request: Request) -> Response:
    """Answer a request without a prompt, which only has the model loaded. Raises RbeeError where it is not."""
    service.require_engine()
    stream = body.stream is not False
    media_type = Dialect.OLLAMA.media_type if stream else "application/json"
    response = Response(load_line(request.url.path, body.model or service.settings.name, "load"), media_type=media_type)
    name_ignored(response, ollama.ignored_fields(body))
    return response
