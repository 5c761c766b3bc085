"""Models: download, follow, list, show, remove."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import CatalogEntry, DownloadProgress, DownloadRequest, ModelDetails, ModelQuery
from rbee.contracts.queen import ModelList
from rbee.contracts.references import Provider
from rbee.daemonkit.json_body import JsonBody
from rbee.daemonkit.sse import DONE, EventStream, encode
from rbee.errors import RbeeError
from rbee.hive.daemon import Hive
from rbee.hive.models.download import Download
from rbee.hive.routes.dependencies import HiveDep
from rbee.model_reference import parse_reference

router = APIRouter(prefix="/v1/models")
# What is here already, or refused, is known within this time: the answer then says so and the stream is not needed.
PROMPT_S = 0.3


@router.post("/download")
async def download(hive: HiveDep, body: JsonBody[DownloadRequest]) -> DownloadProgress:
    """Start to ensure a model; answered at once, with `complete` if it is here.

    A download that nobody follows ends after `download_grace_s`. One that runs goes on with the neighbours given last.
    """
    hive.drain.check()
    ref = parse_reference(body.model)
    started = hive.downloads.start(ref, body.neighbours, origin=body.origin)
    in_place = ref.provider in (Provider.FILE, Provider.PACKAGE)
    if await started.settled(None if in_place else PROMPT_S):
        started.outcome()
    return started.progress


@router.get("/download/progress", status_code=200, response_class=EventStream)
async def progress(hive: HiveDep, query: Annotated[ModelQuery, Query()]) -> EventStream:
    """Follow a download to its end."""
    followed = hive.downloads.get(parse_reference(query.model).canonical)
    return EventStream(_events(followed), until=hive.drain.closed)


@router.delete("/download", status_code=204, response_class=Response)
async def cancel(hive: HiveDep, query: Annotated[ModelQuery, Query()]) -> None:
    """Cancel a download, whoever follows it; what was received is kept for the next one of the same model."""
    await hive.downloads.cancel(parse_reference(query.model).canonical)


@router.get("/list")
async def list_models(hive: HiveDep) -> ModelList:
    """List the catalog, each model with what is wrong with its file now, and the downloads that run."""
    return ModelList(models=await hive.catalog.all(), downloads=hive.downloads.listed())


@router.get("/show")
async def show(hive: HiveDep, query: Annotated[ModelQuery, Query()]) -> ModelDetails:
    """Show a model of the catalog with what its GGUF header says."""
    return await _details(hive, await hive.catalog.get(query.model))


@router.get("/{model_id}")
async def show_by_id(hive: HiveDep, model_id: str) -> ModelDetails:
    """Show a model of the catalog by its id."""
    return await _details(hive, await hive.catalog.get(model_id))


@router.delete("/{model:path}", status_code=204, response_class=Response)
async def remove(hive: HiveDep, model: str) -> None:
    """Remove a model by id or reference; a downloaded file is deleted, one used in place is not touched."""
    entry = await hive.catalog.get(model)
    workers = hive.workers.using(entry.reference)
    if workers:
        raise RbeeError(
            ErrorCode.MODEL_IN_USE,
            f"{entry.reference} is loaded by {', '.join(workers)}.",
            details={"model": entry.reference, "workers": workers},
        )
    fetched = entry.provider in (Provider.HF, Provider.HTTPS)
    # A home that was copied from another one may name files of that one.
    ours = Path(entry.local_path).is_relative_to(hive.paths.models)
    await hive.catalog.remove(entry, with_files=fetched and ours)


async def _events(followed: Download) -> AsyncIterator[bytes]:
    async with aclosing(followed.watch()) as steps:  # who leaves stops waiting at once
        async for step in steps:
            yield encode(step)
    yield DONE


async def _details(hive: Hive, entry: CatalogEntry) -> ModelDetails:
    known = entry.model_dump()
    if entry.problem is not None:
        return ModelDetails(**known)
    header = await hive.headers.read(Path(entry.local_path))
    return ModelDetails(
        **known,
        vocabulary_size=header.vocabulary_size,
        end_token=header.end_token,
        layers=header.layers,
        embedding_length=header.embedding_length,
        name=header.name,
        has_chat_template=header.has_chat_template,
    )
