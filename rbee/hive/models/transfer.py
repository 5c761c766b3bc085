"""Download one file over HTTP: one attempt, which continues where the last one stopped, within limits."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn, ParamSpec, TypeVar

from rbee.client.web import httpx
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.gguf.reader import MAGIC
from rbee.hive.models.disk_space import DiskSpace
from rbee.hive.models.guarded_transport import GuardedTransport
from rbee.hive.models.partial_file import PartialFile
from rbee.hive.models.remote import BrokenTransferError, RemoteFile, http_error
from rbee.hive.models.source_guard import MAX_REDIRECTS, SourceGuard, too_many_redirects
from rbee.observe import metrics

CONNECT_TIMEOUT_S: Final = 5.0
WRITE_BYTES: Final = 1024 * 1024
WRITE_INTERVAL_S: Final = 0.2
# How file servers refuse a signature whose time is over.
_EXPIRED: Final = frozenset({400, 401, 403, 410})
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")
_DIGITS: Final = re.compile(r"[0-9]{1,18}\Z")
OnBytes = Callable[[int, int | None], None]
T = TypeVar("T")
P = ParamSpec("P")


def new_client(guard: SourceGuard, stall_s: float) -> httpx.AsyncClient:
    """Build the HTTP client of a download; *stall_s* without a byte ends an attempt.

    httpx sends the authorization of a request along a redirect only to the same host.
    """
    return httpx.AsyncClient(
        transport=GuardedTransport(guard),
        follow_redirects=True,
        max_redirects=MAX_REDIRECTS,
        timeout=httpx.Timeout(connect=CONNECT_TIMEOUT_S, read=stall_s, write=stall_s, pool=None),
        headers={"Accept-Encoding": "identity"},
    )


def new_hive_client(url: str, stall_s: float) -> httpx.AsyncClient:
    """Build the HTTP client for copies from the hive at *url*, which is the queen's to choose and follows no rules."""
    return httpx.AsyncClient(
        trust_env=False,
        # Loading the trusted certificates takes time, and plain HTTP does not need them.
        verify=url.startswith("https:"),
        timeout=httpx.Timeout(connect=CONNECT_TIMEOUT_S, read=stall_s, write=stall_s, pool=None),
        headers={"Accept-Encoding": "identity"},
    )


@dataclass(frozen=True, slots=True)
class Transfer:
    """What an attempt works on.

    Attributes:
        max_bytes: the most that the file may have.
        on_bytes: called with the bytes there are and the bytes in all, where that is known.
    """

    file: RemoteFile
    partial: PartialFile
    space: DiskSpace
    max_bytes: int
    on_bytes: OnBytes

    async def run(self, client: httpx.AsyncClient) -> None:
        """Download what the partial file still lacks.

        Raises:
            BrokenTransferError: a retry may succeed.
            RbeeError: a retry will not; DISK_FULL, MODEL_ACCESS_DENIED, MODEL_NOT_FOUND, MODEL_INVALID,
                DOWNLOAD_FAILED for a source or a size that is not allowed.
        """
        file, partial = self.file, self.partial
        if (file.size or 0) > self.max_bytes:
            raise self._too_large(file.size)
        have = await asyncio.to_thread(partial.recover)
        version = await asyncio.to_thread(partial.version) if have else None
        # What is named by its SHA-256 is continued only by a source that tells the same.
        named = version is not None and _SHA256.match(version) is not None
        if have and (version is None or ((named or file.sha256 is not None) and version != file.sha256)):
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
                await self._receive(response, have)
        except httpx.TimeoutException as error:
            what = "connection" if isinstance(error, httpx.ConnectTimeout) else "byte"
            limit = client.timeout.connect if what == "connection" else client.timeout.read
            raise BrokenTransferError(f"no {what} for {limit:g} s") from error
        except httpx.TooManyRedirects as error:
            raise too_many_redirects(file.url) from error
        except (httpx.TransportError, UnicodeError) as error:  # the latter for a redirect to an impossible name
            raise BrokenTransferError(str(error) or type(error).__name__) from error

    async def _receive(self, response: httpx.Response, have: int) -> None:
        file, partial = self.file, self.partial
        if response.status_code == 416 and have:
            await self._start_over("the server's file is shorter than the part that is here; starting over")
        if response.status_code not in (200, 206):
            raise self._failure(response)
        total = file.size
        if response.status_code == 206:
            start, total = _content_range(response, total)
            if start is None or start > have:
                await self._start_over(f"the server continued at byte {start} instead of {have}")
            elif start < have:
                have = await asyncio.to_thread(partial.cut, start)
        else:
            total = _number(response.headers.get("Content-Length", ""), total)
            have = 0
        if file.size is not None and total is not None and total != file.size:
            await self._start_over(f"the server offers {total} bytes, the file has {file.size}")
        if (total or 0) > self.max_bytes:
            await asyncio.to_thread(partial.discard)
            raise self._too_large(total)
        await asyncio.to_thread(self.space.check, partial.target.parent, (total or 0) - have)
        self.on_bytes(have, total)
        try:
            if have == 0:
                await asyncio.to_thread(partial.begin, file.sha256 or _version(response))
            have = await self._write_all(response, have, total)
        except OSError as error:
            raise self.space.error(error, partial.target, (total or 0) - partial.size()) from error
        except _UnusableError as error:
            await asyncio.to_thread(partial.discard)
            raise error.reason from error
        if total is not None and have < total:
            raise BrokenTransferError(f"the connection ended after {have} of {total} bytes")

    async def _start_over(self, reason: str) -> NoReturn:
        """Remove what is here, which the server does not continue: the next attempt asks for the whole file.

        Raises BrokenTransferError.
        """
        await asyncio.to_thread(self.partial.discard)
        raise BrokenTransferError(reason)

    async def _write_all(self, response: httpx.Response, have: int, total: int | None) -> int:
        pending = bytearray()
        written_at = time.monotonic()
        try:
            async for chunk in response.aiter_raw():
                pending += chunk
                self._check(have, pending, total)
                now = time.monotonic()
                if len(pending) >= WRITE_BYTES or now - written_at >= WRITE_INTERVAL_S:
                    data, written_at = bytes(pending), now
                    pending.clear()
                    await _finished_even_if_canceled(self._append, data, have, total)
                    have += len(data)
                    self.on_bytes(have, total)
        except _UnusableError:
            pending.clear()
            raise
        finally:
            # Also when the connection breaks or the hive stops: what was received is kept for the next attempt.
            if pending:
                self._append(bytes(pending), have, total)
                have += len(pending)
                self.on_bytes(have, total)
        return have

    def _check(self, have: int, pending: bytearray, total: int | None) -> None:
        """Raise _UnusableError as soon as it is plain that no model comes of this."""
        if have == 0 and not pending.startswith(MAGIC[: len(pending)]):
            raise _UnusableError(
                RbeeError(
                    ErrorCode.MODEL_INVALID,
                    f"{self._shown} is not a GGUF file: it begins with other bytes.",
                    hint="It may be a page about the file, or of a login; name the address of the file itself.",
                )
            )
        received = have + len(pending)
        if total is not None and received > total:
            raise _UnusableError(
                RbeeError(
                    ErrorCode.DOWNLOAD_FAILED,
                    f"{self._shown} is longer than the {total} bytes that were announced; it was removed.",
                    details={"announced_bytes": total, "reason": "size"},
                    hint="Its server is broken or hostile; use another source.",
                )
            )
        if received > self.max_bytes:
            raise _UnusableError(self._too_large(None))

    def _append(self, data: bytes, have: int, total: int | None) -> None:
        folder = self.partial.target.parent
        if not self.space.fits(folder, len(data)):
            full = self.space.full(folder, len(data) if total is None else total - have)
            # Nobody knows whether a file of unknown length will ever fit.
            raise _UnusableError(full) if total is None else full
        self.partial.append(data)
        metrics.HIVE_DOWNLOADED.add(len(data))

    @property
    def _shown(self) -> str:
        return str(httpx.URL(self.file.url).copy_with(query=None))

    def _failure(self, response: httpx.Response) -> RbeeError | BrokenTransferError:
        status = response.status_code
        source = httpx.URL(self.file.url)
        if status in _EXPIRED and response.url.netloc != source.netloc:
            # The source leads to a signed address on another host; asked again, it gives a fresh one.
            return BrokenTransferError(f"{response.url.host} refused its signed address (HTTP {status})")
        return http_error(
            status,
            self._shown,
            response.headers.get("Retry-After"),
            signed=bool(source.query),
            on_hub=self.file.on_hub,
        )

    def _too_large(self, size: int | None) -> RbeeError:
        gb = 1024**3
        has = f"has {size / gb:.4g} GB" if size is not None else f"has more than {self.max_bytes / gb:.4g} GB"
        return RbeeError(
            ErrorCode.DOWNLOAD_FAILED,
            f"{self._shown} {has}, which is more than download_max_gb allows.",
            details={"max_bytes": self.max_bytes, "announced_bytes": size, "reason": "size"},
            hint="If the model really is that large, raise download_max_gb of the hive.",
        )


class _UnusableError(Exception):
    """Raised when what was received is of no use and is to be removed; `reason` is the error to report."""

    def __init__(self, reason: RbeeError) -> None:
        super().__init__(reason.message)
        self.reason = reason


async def _finished_even_if_canceled(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking work in a thread; whoever cancels this waits for its end, and may then touch the same file."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _content_range(response: httpx.Response, total: int | None) -> tuple[int | None, int | None]:
    """Read `bytes 400-999/1000`."""
    span, _, length = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    return _number(span.partition("-")[0], None), _number(length, total)


def _number(text: str, otherwise: int | None) -> int | None:
    return int(text) if _DIGITS.match(text) else otherwise


def _version(response: httpx.Response) -> str | None:
    """Return what names the version of the file; None for what could not be sent back."""
    etag: str | None = response.headers.get("ETag")
    version = etag if etag is not None and not etag.startswith("W/") else response.headers.get("Last-Modified")
    return version if version is not None and version.isascii() and version.isprintable() else None
