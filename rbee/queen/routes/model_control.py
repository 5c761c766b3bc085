"""What an operator does to a model by its name: llama-server's loading and unloading, Ollama's pulling and deleting."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from rbee.contracts.llama_server import LoadModelRequest, Success
from rbee.contracts.models import CatalogEntry, DownloadProgress
from rbee.contracts.ollama import NamedModelRequest, OllamaError, PullStatus
from rbee.contracts.queen import Progress
from rbee.contracts.references import short_reference
from rbee.daemonkit.json_body import JsonBody
from rbee.daemonkit.json_lines import JsonLines, encode_line
from rbee.queen.daemon import Queen
from rbee.queen.fleet.model_names import no_such_model
from rbee.queen.progress import SharedJob
from rbee.queen.routes.dependencies import ClientDep, QueenDep
from rbee.queen.routes.model_access import find_model, listed_models, plain_name, reference_of
from rbee.queen.routes.unloading import unload_model
from rbee.queen.scheduling.placement import AwaitRoom, AwaitWorker, SpawnWorker, UseWorker
from rbee.queen.scheduling.rejections import Refusal
from rbee.queen.scheduling.request import PlacementRequest

router = APIRouter()
ollama = APIRouter(responses={"default": {"model": OllamaError, "description": "Any failure"}})
_NODE_HEADER: Final = "X-Rbee-Node"
_HUB: Final = re.compile(r"(?:https?://)?(?:hf\.co|huggingface\.co)/(?=[^/]+/[^/]+$)")


@router.post("/models/load")
async def load(queen: QueenDep, client: ClientDep, body: JsonBody[LoadModelRequest], request: Request) -> Success:
    """Begin to load a model, unless it is loaded; GET /models tells when it is."""
    queen.drain.check()
    model = await find_model(queen, client, body.model)
    placement = PlacementRequest(model.reference, request.headers.get(_NODE_HEADER), served=model.served)
    await queen.readiness.ensure(placement)
    decision = queen.fleet.place(placement)
    if isinstance(decision, Refusal):
        raise decision.error()
    if isinstance(decision, SpawnWorker):
        queen.starter.start_for(placement, decision)
    return Success()


@router.post("/models/unload")
async def unload(queen: QueenDep, client: ClientDep, body: JsonBody[LoadModelRequest]) -> Success:
    """Stop all workers of a model, each once its requests have ended; answer when they are gone."""
    await unload_model(queen, client, body.model)
    return Success()


@ollama.post("/api/pull", response_class=Response)
async def pull(queen: QueenDep, body: JsonBody[NamedModelRequest], request: Request) -> Response:
    """Fetch a model to the node of X-Rbee-Node, or to the one on which a request would run."""
    queen.drain.check()
    name = plain_name(queen, body.wanted)
    reference = reference_of(queen, _HUB.sub("hf:", name))
    node = await _node_for(queen, reference, request.headers.get(_NODE_HEADER))
    job = queen.starter.ensure_model(node, reference)
    if body.stream is False:
        await job.result()
        return JSONResponse(PullStatus(status="success").model_dump(exclude_none=True))
    return JsonLines(_pulling(job, reference), until=queen.drain.closed)


@ollama.delete("/api/delete", response_class=Response)
async def delete(queen: QueenDep, client: ClientDep, body: JsonBody[NamedModelRequest], request: Request) -> Response:
    """Remove a model from every node that has it, or from that of X-Rbee-Node."""
    name, node = plain_name(queen, body.wanted), request.headers.get(_NODE_HEADER)
    reference = (await find_model(queen, client, name)).reference
    await queen.readiness.wait_for_catalogs()
    spellings = queen.fleet.spellings(reference)
    entries = [
        (hive.node, entry)
        for hive in queen.fleet.registry.hives()
        for entry in hive.models
        if node in (None, hive.node) and entry.reference in spellings
    ]
    if not entries:
        raise no_such_model(name, [model.name for model in await listed_models(queen, client)])
    await asyncio.gather(*(queen.channels.client(where).remove_model(entry.id) for where, entry in entries))
    return Response()


async def _node_for(queen: Queen, reference: str, node: str | None) -> str:
    """Return the node to which a model is fetched: *node*, or where it would run. Raises RbeeError for none."""
    if node is not None:
        await queen.readiness.ensure_node(node)
        return node
    placement = PlacementRequest(reference)
    await queen.readiness.ensure(placement)
    decision = queen.fleet.place(placement)
    match decision:
        case AwaitRoom(site=site):
            return site.node
        case UseWorker(node=node) | AwaitWorker(node=node) | SpawnWorker(node=node):
            return node
    # It may fit where it does not now; the disk is checked by the hive.
    connected = [hive.node for hive in queen.fleet.registry.hives() if hive.connected]
    if not connected:
        raise decision.error()
    return connected[0]


async def _pulling(job: SharedJob[CatalogEntry], reference: str) -> AsyncIterator[bytes]:
    yield encode_line(PullStatus(status="pulling manifest"))
    async with aclosing(job.events()) as events:
        async for event in events:
            if isinstance(event, Progress) and event.download is not None:
                yield encode_line(_status(event.download, short_reference(reference)))
    await job.result()
    yield encode_line(PullStatus(status="success"))


def _status(progress: DownloadProgress, name: str) -> PullStatus:
    """Return a step of a download in Ollama's words; clients tell the files of a model apart by their digests."""
    if progress.stage == "verifying":
        return PullStatus(status="verifying sha256 digest")
    if progress.stage == "retrying":
        return PullStatus(status=f"pulling {name}: {progress.reason or 'retrying'}")
    return PullStatus(
        status=f"pulling {name}", digest=name, total=progress.bytes_total, completed=progress.bytes_downloaded
    )
