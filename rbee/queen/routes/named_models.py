"""The models by the names that clients use: lists (OpenAI, llama-server, Ollama), and what a worker tells of one."""

from __future__ import annotations

from typing import Annotated, TypeVar

from fastapi import APIRouter, Query
from pydantic import TypeAdapter, ValidationError

from rbee import __version__
from rbee.contracts.errors import ErrorCode
from rbee.contracts.llama_server import MaybeModelQuery, Props, RouterProps, SlotState
from rbee.contracts.models import ModelCard, ModelCards
from rbee.contracts.ollama import (
    NamedModelRequest,
    OllamaError,
    OllamaVersion,
    RunningModels,
    ShownModel,
    TaggedModels,
)
from rbee.contracts.workers import WorkerAccess
from rbee.daemonkit import ollama_lists
from rbee.daemonkit.json_body import JsonBody
from rbee.errors import RbeeError
from rbee.queen.client_view import reduced_error
from rbee.queen.daemon import Queen
from rbee.queen.keys.access import Client
from rbee.queen.relay.connection import UpstreamError
from rbee.queen.relay.fetch import fetch
from rbee.queen.routes.dependencies import ClientDep, QueenDep
from rbee.queen.routes.model_access import (
    NamedModel,
    find_model,
    fleet_models,
    listed_model,
    listed_models,
    not_loaded,
    plain_name,
    workers_of,
)

router = APIRouter()
ollama = APIRouter(responses={"default": {"model": OllamaError, "description": "Any failure"}})
T = TypeVar("T")
_PROPS: TypeAdapter[Props] = TypeAdapter(Props)
_SLOTS: TypeAdapter[list[SlotState]] = TypeAdapter(list[SlotState])


@router.get("/models")
@router.get("/v1/models")
async def models(queen: QueenDep, client: ClientDep) -> ModelCards:
    """List the models that the caller may use: declared ones, aliases, and what is in a catalog or served somewhere."""
    return ModelCards(data=[model.card() for model in await listed_models(queen, client)])


@router.get("/v1/models/{name:path}")
async def model(queen: QueenDep, client: ClientDep, name: str) -> ModelCard:
    """Return one model that the caller may use, by any of its names."""
    return (await listed_model(queen, client, name)).card()


@router.get("/props")
async def props(queen: QueenDep, client: ClientDep, query: Annotated[MaybeModelQuery, Query()]) -> Props | RouterProps:
    """Return the properties of a model that is loaded; without one, that there are several."""
    if query.model is None:
        return RouterProps(build_info=f"rbee {__version__}")
    found = await _ask(queen, client, query.model, "/props", _PROPS)
    return found.model_copy(update={"model_alias": query.model, "model_path": query.model})


@router.get("/slots")
async def slots(queen: QueenDep, client: ClientDep, query: Annotated[MaybeModelQuery, Query()]) -> list[SlotState]:
    """Describe the slots of a worker of a model."""
    if query.model is None:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            "'model' is required: each model has slots of its own.",
            hint="Name one of GET /v1/models: /slots?model=NAME",
            param="model",
        )
    return await _ask(queen, client, query.model, "/slots", _SLOTS)


@ollama.get("/api/version")
async def version() -> OllamaVersion:
    """Return the version of Ollama whose interface this is."""
    return OllamaVersion(rbee_version=__version__)


@ollama.get("/api/tags")
async def tags(queen: QueenDep, client: ClientDep) -> TaggedModels:
    """List the models that the caller may use (Ollama)."""
    return TaggedModels(models=[ollama_lists.tagged(model) for model in await listed_models(queen, client)])


@ollama.get("/api/ps")
async def loaded(queen: QueenDep, client: ClientDep) -> RunningModels:
    """List the models that the caller may use and that are loaded (Ollama)."""
    known = fleet_models(queen)
    found = []
    for model in await listed_models(queen, client):
        if model.state == "loaded":
            meant = await find_model(queen, client, model.name)
            spellings = queen.fleet.spellings(meant.reference)
            expires, on_gpus = known.residence(spellings, meant.served)
            found.append(ollama_lists.running(model, expires=expires, device_bytes=on_gpus))
    return RunningModels(models=found)


@ollama.post("/api/show")
async def show(queen: QueenDep, client: ClientDep, body: JsonBody[NamedModelRequest]) -> ShownModel:
    """Describe one model that the caller may use (Ollama)."""
    name = plain_name(queen, body.wanted)
    model = await listed_model(queen, client, name)
    template = ""
    if model.state == "loaded" and "completion" in model.capabilities:
        template = (await _ask(queen, client, name, "/props", _PROPS)).chat_template
    return ollama_lists.shown(model, template=template)


async def _ask(queen: Queen, client: Client, name: str, path: str, answer: TypeAdapter[T]) -> T:
    """Ask a worker of a model. Raises RbeeError, of which a client is told what it may see."""
    link = _worker(queen, name, await find_model(queen, client, name))
    try:
        return answer.validate_json(await fetch(queen.pool, link, path))
    except (OSError, TimeoutError, UpstreamError, ValidationError) as error:
        failure = RbeeError(
            ErrorCode.CONNECTION_TIMEOUT,
            f"Worker {link.worker.worker_id} on {link.worker.node} does not answer {path}: "
            f"{str(error) or type(error).__name__}.",
        )
        raise failure if client.operates else reduced_error(failure) from error


def _worker(queen: Queen, name: str, model: NamedModel) -> WorkerAccess:
    """Return a worker that serves a model. Raises RbeeError WORKER_NOT_FOUND."""
    registry = queen.fleet.registry
    workers = workers_of(queen, model)
    serving = [link for worker in workers if worker.state.serves and (link := registry.worker(worker.worker_id))]
    if not serving:
        raise not_loaded(name)
    return serving[0]
