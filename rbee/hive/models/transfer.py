"""Fetch one file over HTTP: one attempt that goes on where the last one stopped, and proof that the result is whole.

A file grows as `NAME.part` beside its place, with `NAME.part.json` naming the version that it is a part of; it takes
its own name only when it is whole, checked and on the disk. Bytes are written as they come and synced every 8 MiB:
what a power cut leaves beyond the last sync is not believed, what a killed process leaves is.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rbee.client.web import httpx
from rbee.config.paths import storage_error
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.hive.models.remote import BrokenTransferError, RemoteFile, http_error
from rbee.observe import metrics

CONNECT_TIMEOUT_S: Final = 5.0
WRITE_BYTES: Final = 1024 * 1024
WRITE_INTERVAL_S: Final = 0.2
SYNC_BYTES: Final = 8 * 1024 * 1024
OnBytes = Callable[[int, int | None], None]


def new_client(stall_s: float) -> httpx.AsyncClient:
    """Make the HTTP client of a download; *stall_s* without a byte breaks a transfer."""
    timeout = httpx.Timeout(connect=CONNECT_TIMEOUT_S, read=stall_s, write=stall_s, pool=None)
    return httpx.AsyncClient(follow_redirects=True, timeout=timeout, headers={"Accept-Encoding": "identity"})


class PartialFile:
    """A file on its way to *target*. Blocking; call it from a thread."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._part = target.with_name(target.name + ".part")
        self._note = target.with_name(target.name + ".part.json")
        self._unsynced = 0

    def size(self) -> int:
        """Return how many bytes are there, 0 if none."""
        try:
            return self._part.stat().st_size
        except FileNotFoundError:
            return 0

    def recover(self) -> int:
        """Cut off what an earlier start of the machine may have left half-written; give how many bytes are there."""
        have, note = self.size(), self._read_note()
        synced = note.get("synced")
        if have and note.get("boot") != boot_id() and isinstance(synced, int) and synced < have:
            os.truncate(self._part, synced)
            return synced
        return have

    def version(self) -> str | None:
        """Return the version that the bytes belong to; None if that is not known."""
        version = self._read_note().get("version")
        return version if isinstance(version, str) else None

    def begin(self, version: str | None) -> None:
        """Start from nothing with bytes of *version*."""
        self.target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._part.write_bytes(b"")
        self._write_note(version, 0)

    def _read_note(self) -> dict[str, Any]:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return note if isinstance(note, dict) else {}

    def _write_note(self, version: str | None, synced: int) -> None:
        """Replace the note whole, so that it is never read half."""
        aside = self._note.with_name(self._note.name + ".new")
        aside.write_text(json.dumps({"version": version, "synced": synced, "boot": boot_id()}), encoding="utf-8")
        aside.replace(self._note)

    def append(self, data: bytes) -> None:
        """Add bytes at the end."""
        with self._part.open("ab", buffering=0) as file:
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            self._unsynced += len(data)
            if self._unsynced >= SYNC_BYTES:
                os.fsync(file.fileno())
                self._unsynced = 0
                self._write_note(self.version(), self.size())

    def sha256(self) -> str:
        """Hash what is there."""
        return sha256_of(self._part)

    def finish(self) -> None:
        """Return the file its name, so that it survives a power cut whole or not at all."""
        with self._part.open("rb") as file:
            os.fsync(file.fileno())
        self._part.replace(self.target)
        self._note.unlink(missing_ok=True)
        folder = os.open(self.target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        """Remove what is there."""
        self._part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


def boot_id() -> str:
    """Name this start of the machine; empty where the system has no name for it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def sha256_of(path: Path) -> str:
    """Hash a file. Blocking."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def fetch(client: httpx.AsyncClient, file: RemoteFile, partial: PartialFile, on_bytes: OnBytes) -> None:
    """Fetch what *partial* still lacks of *file*.

    Args:
        on_bytes: called with the bytes there are and the bytes in all, where that is known.

    Raises:
        BrokenTransferError: it may work when tried again.
        RbeeError: it will not; DISK_FULL, MODEL_ACCESS_DENIED, MODEL_NOT_FOUND...
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
        raise BrokenTransferError("the server has less than what was fetched before; starting anew")
    if response.status_code not in (200, 206):
        raise _failure(response, file)
    total = file.size
    if response.status_code == 206:
        start, total = _content_range(response, total)
        if start != have:
            raise BrokenTransferError(f"the server went on at byte {start} instead of {have}")
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
        # Also when the connection breaks or the hive stops: what came is kept for the next attempt.
        if pending:
            partial.append(bytes(pending))
            metrics.HIVE_DOWNLOADED.add(len(pending))
            have += len(pending)
            on_bytes(have, total)
    return have


def check_space(folder: Path, needed: int) -> None:
    """Raise RbeeError DISK_FULL unless *needed* more bytes fit where *folder* lies."""
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise _disk_full(folder, needed, free)


def _disk_full(folder: Path, needed: int, free: int) -> RbeeError:
    mib = 1024 * 1024
    return RbeeError(
        ErrorCode.DISK_FULL,
        f"The download needs {-(-needed // mib)} MB in {folder}, and {free // mib} MB are free.",
        details={"path": str(folder), "required_bytes": needed, "available_bytes": free},
    )


def disk_error(error: OSError, target: Path, needed: int = 0) -> RbeeError:
    """Turn a refusal of the disk into an error; *needed* is how many bytes were still to come."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _disk_full(target.parent, needed, shutil.disk_usage(target.parent).free)
    return storage_error(error, target)


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
