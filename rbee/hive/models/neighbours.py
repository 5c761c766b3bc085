"""Copy models from the hives that a queen names, one after the other, each continuing where the one before stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import ModelFiles, Neighbour, model_files_path
from rbee.errors import RbeeError
from rbee.hive.models.file_selection import choose_files
from rbee.hive.models.local_sources import url_path
from rbee.hive.models.remote import BrokenTransferError, RemoteFile, http_error
from rbee.model_reference import HubRef, UrlRef, path_problem

if TYPE_CHECKING:
    from pathlib import Path

    from rbee.client.web import httpx
    from rbee.hive.models.download import Download
    from rbee.hive.models.fetching import FileFetcher

log = logging.getLogger(__name__)
LIST_TIMEOUT_S: Final = 10.0
# A machine of the same network that is silent for so long has lost its power or its cable.
STALL_S: Final = 15.0
MAX_LIST_BYTES: Final = 1024 * 1024
# What another source would fail with too.
_OWN_FAILURES: Final = frozenset({ErrorCode.DISK_FULL, ErrorCode.STATE_CORRUPT, ErrorCode.PERMISSION_DENIED})


async def copy(ref: HubRef | UrlRef, download: Download, fetcher: FileFetcher) -> tuple[list[Path], list[str]] | None:
    """Copy a model from the first of the download's neighbours that gives all of it; None where its origin is next.

    Returns the paths of its files and the SHA-256 of each. What was received of one is continued by the next.

    Raises RbeeError where it is this machine that fails, and DOWNLOAD_FAILED where none gives it and the download may
    not go to the origin.
    """
    tried: set[str] = set()
    reasons = []
    while (neighbour := download.neighbour(tried)) is not None:
        tried.add(neighbour.node)
        try:
            return await _copy_from(neighbour, ref, download, fetcher)
        except (BrokenTransferError, RbeeError) as error:
            if isinstance(error, RbeeError) and error.code in _OWN_FAILURES:
                raise
            reason = error.message if isinstance(error, RbeeError) else error.reason
        download.source = None
        reasons.append(f"{neighbour.node}: {reason.rstrip('.')}")
        if (following := download.neighbour(tried)) is not None:
            _report(download, f"{reasons[-1]}; going on from {following.node}")
        elif download.from_origin:
            _report(download, f"{reasons[-1]}; going on at the model's origin")
    if download.from_origin:
        return None
    raise RbeeError(
        ErrorCode.DOWNLOAD_FAILED,
        f"No other hive gives all of {ref.canonical}: {'; '.join(reasons) or 'none was named'}.",
        details={"model": ref.canonical, "neighbours": sorted(tried)},
    )


async def _copy_from(
    neighbour: Neighbour, ref: HubRef | UrlRef, download: Download, fetcher: FileFetcher
) -> tuple[list[Path], list[str]]:
    """Copy a model from one hive; where a transfer breaks that brought something, continue it there.

    Raises BrokenTransferError or RbeeError, see `transfer`, and INVALID_RESPONSE.
    """
    from rbee.hive.models import transfer  # imports httpx, which a start without a download does not need

    download.source = neighbour.node
    async with transfer.new_hive_client(neighbour.url, min(fetcher.stall_s, STALL_S)) as client:
        for attempt, wait_s in enumerate(download.waits, start=1):
            before = download.progress.bytes_downloaded
            try:
                # A queen renews the ticket of a download that takes long.
                given = download.offered(neighbour)
                return await fetcher.fetch(download, await plan(given, ref, client), client=client)
            except BrokenTransferError as error:
                if download.progress.bytes_downloaded <= before:
                    raise
                of = len(download.waits)
                _report(download, f"{neighbour.node}: {error.reason}", attempt=attempt, attempts=of)
                await asyncio.sleep(wait_s)
    raise BrokenTransferError(f"the copy broke off {len(download.waits)} times")


async def plan(neighbour: Neighbour, ref: HubRef | UrlRef, client: httpx.AsyncClient) -> list[RemoteFile]:
    """Return the files of a model as a hive lists them.

    Raises BrokenTransferError, or RbeeError: the hive's own, or INVALID_RESPONSE for a list that is not that of the
    model which the queen means.
    """
    listed = await _list_files(neighbour, client)
    names = [file.name for file in listed.files]
    problem = next(filter(None, map(path_problem, names)), None)
    if listed.reference != ref.canonical:
        problem = f"it is of {listed.reference[:200]}"
    elif listed.files[0].sha256 != neighbour.sha256:
        problem = f"the file has the sha256 {listed.files[0].sha256}, the queen was told {neighbour.sha256}"
    elif sum(file.size_bytes for file in listed.files) != neighbour.size_bytes:
        problem = f"the files have another size than the {neighbour.size_bytes} bytes that the queen was told"
    elif problem is None and (choose_files(ref, names) if isinstance(ref, HubRef) else names[:1]) != names:
        problem = "they are other files than the reference means"
    if problem is not None:
        raise RbeeError(
            ErrorCode.INVALID_RESPONSE,
            f"The list of files for {ref.canonical} from the hive on {neighbour.node} is not used: {problem}.",
        )
    base = neighbour.url + model_files_path(neighbour.model_id)
    paths = [f"{ref.folder}/{name}" for name in names] if isinstance(ref, HubRef) else [url_path(ref)]
    return [
        RemoteFile(
            url=f"{base}/{number}",
            path=path,
            size=file.size_bytes,
            sha256=file.sha256,
            headers={"Authorization": f"Bearer {neighbour.ticket}"},
        )
        for number, (file, path) in enumerate(zip(listed.files, paths, strict=True))
    ]


async def _list_files(neighbour: Neighbour, client: httpx.AsyncClient) -> ModelFiles:
    from rbee.client.web import httpx

    url = neighbour.url + model_files_path(neighbour.model_id)
    body = bytearray()
    try:
        async with (
            asyncio.timeout(LIST_TIMEOUT_S),
            client.stream("GET", url, headers={"Authorization": f"Bearer {neighbour.ticket}"}) as response,
        ):
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > MAX_LIST_BYTES:
                    raise _no_list(neighbour)
    except (TimeoutError, httpx.TimeoutException) as error:
        raise BrokenTransferError(f"it did not answer within {LIST_TIMEOUT_S:g} s") from error
    except httpx.HTTPError as error:
        raise BrokenTransferError(f"it could not be reached: {str(error) or type(error).__name__}") from error
    if response.status_code != httpx.codes.OK:
        raise _refusal(neighbour, response, bytes(body))
    try:
        return ModelFiles.model_validate_json(bytes(body))
    except ValidationError as error:
        raise _no_list(neighbour) from error


def _refusal(neighbour: Neighbour, response: httpx.Response, body: bytes) -> RbeeError | BrokenTransferError:
    """Return the error with which a hive refused, in its own words where it has any."""
    failed = http_error(response.status_code, f"The model at {neighbour.node}", response.headers.get("Retry-After"))
    if isinstance(failed, BrokenTransferError):
        return failed
    with contextlib.suppress(ValueError):
        own = RbeeError.from_body(json.loads(body))
        return failed if own is None else RbeeError(ErrorCode.DOWNLOAD_FAILED, own.message)
    return failed


def _no_list(neighbour: Neighbour) -> RbeeError:
    return RbeeError(ErrorCode.INVALID_RESPONSE, f"{neighbour.url} does not answer as a hive does.")


def _report(download: Download, reason: str, **attempts: int) -> None:
    """Tell whoever waits that a copy broke off, and the log."""
    download.restage(stage="retrying", reason=reason, **attempts)
    log.warning("copy interrupted", extra={"fields": {"model": download.reference, "reason": reason}})
