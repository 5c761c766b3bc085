"""Download one file over HTTP: one attempt, which continues where the last one stopped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from rbee.client.web import httpx
from rbee.errors import RbeeError
from rbee.hive.models.partial_file import PartialFile, check_space, disk_error
from rbee.hive.models.remote import BrokenTransferError, RemoteFile, http_error
from rbee.observe import metrics

CONNECT_TIMEOUT_S: Final = 5.0
WRITE_BYTES: Final = 1024 * 1024
WRITE_INTERVAL_S: Final = 0.2
OnBytes = Callable[[int, int | None], None]


def new_client(stall_s: float) -> httpx.AsyncClient:
    """Build the HTTP client of a download; *stall_s* without a byte ends an attempt."""
    timeout = httpx.Timeout(connect=CONNECT_TIMEOUT_S, read=stall_s, write=stall_s, pool=None)
    return httpx.AsyncClient(follow_redirects=True, timeout=timeout, headers={"Accept-Encoding": "identity"})


async def fetch(client: httpx.AsyncClient, file: RemoteFile, partial: PartialFile, on_bytes: OnBytes) -> None:
    """Download what *partial* still lacks of *file*.

    Args:
        on_bytes: called with the bytes there are and the bytes in all, where that is known.

    Raises:
        BrokenTransferError: a retry may succeed.
        RbeeError: a retry will not; DISK_FULL, MODEL_ACCESS_DENIED, MODEL_NOT_FOUND...
    """
    have = await asyncio.to_thread(partial.recover)
    version = await asyncio.to_thread(partial.version) if have else None
    if have and (version is None or (file.sha256 is not None and version != file.sha256)):
        have = 0
    if have and have == file.size:
        return
    headers = dict(file.headers)
    if have:
        headers["Range"] = f"bytes={have}-"
        if file.sha256 is None and version is not None:
            headers["If-Range"] = version
    try:
        async with client.stream("GET", file.url, headers=headers) as response:
            await _receive(response, file, partial, have, on_bytes)
    except httpx.TimeoutException as error:
        what = "connection" if isinstance(error, httpx.ConnectTimeout) else "byte"
        limit = client.timeout.connect if what == "connection" else client.timeout.read
        raise BrokenTransferError(f"no {what} for {limit:g} s") from error
    except (httpx.TransportError, httpx.TooManyRedirects) as error:
        raise BrokenTransferError(str(error) or type(error).__name__) from error


async def _receive(
    response: httpx.Response, file: RemoteFile, partial: PartialFile, have: int, on_bytes: OnBytes
) -> None:
    if response.status_code == 416 and have:
        await asyncio.to_thread(partial.discard)
        raise BrokenTransferError("the server's file is shorter than the part that is here; starting over")
    if response.status_code not in (200, 206):
        raise _failure(response, file)
    total = file.size
    if response.status_code == 206:
        start, total = _content_range(response, total)
        if start != have:
            raise BrokenTransferError(f"the server continued at byte {start} instead of {have}")
    else:
        length = response.headers.get("Content-Length")
        total = int(length) if length is not None and length.isdigit() else total
        have = 0
    if file.size is not None and total is not None and total != file.size:
        raise BrokenTransferError(f"the server offers {total} bytes, the file has {file.size}")
    check_space(partial.target.parent, (total or 0) - have)
    on_bytes(have, total)
    try:
        if have == 0:
            await asyncio.to_thread(partial.begin, file.sha256 or _version(response))
        have = await _write_all(response, partial, have, total, on_bytes)
    except OSError as error:
        raise disk_error(error, partial.target, (total or 0) - partial.size()) from error
    if total is not None and have < total:
        raise BrokenTransferError(f"the connection ended after {have} of {total} bytes")


async def _write_all(
    response: httpx.Response, partial: PartialFile, have: int, total: int | None, on_bytes: OnBytes
) -> int:
    pending = bytearray()
    written_at = time.monotonic()
    try:
        async for chunk in response.aiter_raw():
            pending += chunk
            now = time.monotonic()
            if len(pending) >= WRITE_BYTES or now - written_at >= WRITE_INTERVAL_S:
                data, written_at = bytes(pending), now
                pending.clear()
                await asyncio.to_thread(partial.append, data)
                metrics.HIVE_DOWNLOADED.add(len(data))
                have += len(data)
                on_bytes(have, total)
    finally:
        # Also when the connection breaks or the hive stops: what was received is kept for the next attempt.
        if pending:
            partial.append(bytes(pending))
            metrics.HIVE_DOWNLOADED.add(len(pending))
            have += len(pending)
            on_bytes(have, total)
    return have


def _failure(response: httpx.Response, file: RemoteFile) -> RbeeError | BrokenTransferError:
    shown = httpx.URL(file.url).copy_with(query=None)
    return http_error(response.status_code, str(shown), response.headers.get("Retry-After"))


def _content_range(response: httpx.Response, total: int | None) -> tuple[int, int | None]:
    """Read `bytes 400-999/1000`."""
    span, _, length = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    start = span.partition("-")[0]
    return int(start) if start.isdigit() else -1, int(length) if length.isdigit() else total


def _version(response: httpx.Response) -> str | None:
    etag: str | None = response.headers.get("ETag")
    if etag is not None and not etag.startswith("W/"):
        return etag
    modified: str | None = response.headers.get("Last-Modified")
    return modified
