"""Fetch the files of a model: within limits, one after the other, with retries, checked, and nothing useless left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.hive.models.download import Download
from rbee.hive.models.limits import DownloadLimits
from rbee.hive.models.partial_file import PartialFile, check_place, sha256_of
from rbee.hive.models.remote import BrokenTransferError, RemoteFile
from rbee.hive.models.source_guard import SourceGuard, with_hub

if TYPE_CHECKING:
    from rbee.client.web import httpx

T = TypeVar("T")
log = logging.getLogger(__name__)


class FileFetcher:
    """Fetches files into *folder*. Two downloads that mean the same file fetch it one after the other."""

    def __init__(self, folder: Path, limits: DownloadLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._locks: dict[Path, asyncio.Lock] = {}
        self._active: Counter[Path] = Counter()

    @property
    def stall_s(self) -> float:
        """Return the seconds without a byte that break a transfer."""
        return self._limits.stall_s

    @property
    def active(self) -> set[Path]:
        """Return the files that downloads are at work on."""
        return {path for path, users in self._active.items() if users}

    async def fetch(
        self,
        download: Download,
        files: list[RemoteFile],
        *,
        doubted: bool = False,
        client: httpx.AsyncClient | None = None,
    ) -> tuple[list[Path], list[str]]:
        """Download all *files* that are not here yet; return their paths and the SHA-256 of each.

        What is here and differs is replaced once the new file is whole, and not before. Where it is *doubted*, a file
        whose SHA-256 its source does not tell counts as different.

        Args:
            client: what a hive is copied from through, which other sources are not: it may reach any address, and is
                not tried again here. Raises BrokenTransferError then.
        """
        from rbee.hive.models import transfer  # imports httpx, which a start without a download does not need

        targets = [self._folder / file.path for file in files]
        total = sum(file.size for file in files if file.size) if all(file.size for file in files) else None
        before = 0
        digests = []
        guard = SourceGuard(with_hub(self._limits.allowed), files[0].url)
        own = transfer.new_client(guard, self._limits.stall_s) if client is None else contextlib.nullcontext(client)
        async with self._reserved(targets), own as used:
            present = {
                target: await asyncio.to_thread(self._find, target, file, doubted=doubted)
                for file, target in zip(files, targets, strict=True)
            }
            if total is not None:
                missing = [pair for pair in zip(files, targets, strict=True) if present[pair[1]] is None]
                await asyncio.to_thread(self._check_space, missing)
            for file, target in zip(files, targets, strict=True):
                shown_before, alone = before, len(files) == 1

                def on_bytes(have: int, size: int | None, before: int = shown_before, *, alone: bool = alone) -> None:
                    download.count(before + have, size if alone else total)

                part = PartialFile(target)
                attempt = transfer.Transfer(file, part, self._limits.space, self._limits.max_bytes - before, on_bytes)
                found = present[target]
                work = partial(attempt.run, used)
                if client is None:
                    work = partial(self.retrying, download, work)
                digests.append(found or await self._fetch_one(download, file, part, work))
                before += (await asyncio.to_thread(target.stat)).st_size
        return targets, digests

    async def retrying(self, download: Download, work: Callable[[], Awaitable[T]]) -> T:
        """Do *work*, again after each temporary failure while the download has retries left."""
        while True:
            try:
                return await work()
            except BrokenTransferError as error:
                if download.retries >= len(download.waits):
                    raise RbeeError(
                        ErrorCode.DOWNLOAD_FAILED,
                        f"The download of {download.reference} failed {download.retries + 1} times, "
                        f"most recently because {error.reason}.",
                        details={"model": download.reference, "retries": download.retries, "reason": error.reason},
                    ) from error
                delay = max(download.waits[download.retries], error.retry_after_s or 0.0)
                download.retries += 1
                download.restage(
                    stage="retrying", attempt=download.retries, attempts=len(download.waits), reason=error.reason
                )
                log.warning(
                    "download interrupted",
                    extra={
                        "fields": {
                            "model": download.reference,
                            "reason": error.reason,
                            "retry": f"{download.retries}/{len(download.waits)}",
                            "delay_s": round(delay, 2),
                        }
                    },
                )
                await asyncio.sleep(delay)

    async def _fetch_one(
        self, download: Download, file: RemoteFile, part: PartialFile, attempt: Callable[[], Awaitable[None]]
    ) -> str:
        """Download and check one file; where the remains of an earlier download may be wrong, download it again."""
        resumed = await asyncio.to_thread(part.size) > 0
        try:
            while True:
                await attempt()
                download.restage(stage="verifying")
                try:
                    return await asyncio.to_thread(self._finish, part, file)
                except RbeeError as error:
                    if error.code is not ErrorCode.CHECKSUM_MISMATCH or not resumed:
                        raise
                    log.warning(
                        "the remains of an earlier download were not usable",
                        extra={"fields": {"reason": error.message}},
                    )
                    resumed = False
        finally:
            part.discard_unless_resumable()

    @asynccontextmanager
    async def _reserved(self, targets: list[Path]) -> AsyncIterator[None]:
        """Hold the files of a model: two references may mean the same ones."""
        self._active.update(targets)
        try:
            async with self._locks.setdefault(targets[0], asyncio.Lock()):
                yield
        finally:
            self._active.subtract(targets)
            self._active += Counter()  # drops what nobody is at work on
            if targets[0] not in self._active:
                del self._locks[targets[0]]

    def _find(self, target: Path, file: RemoteFile, *, doubted: bool) -> str | None:
        """Return the SHA-256 of a file that is here and is what its source has; None for any other.

        Raises RbeeError STATE_CORRUPT where something else lies in its place.
        """
        check_place(target, self._folder)
        if not target.exists() or (doubted and file.sha256 is None):
            return None
        found = sha256_of(target)
        return found if file.sha256 in (None, found) else None

    def _check_space(self, missing: list[tuple[RemoteFile, Path]]) -> None:
        needed = sum((file.size or 0) - PartialFile(target).size() for file, target in missing)
        self._limits.space.check(self._folder, needed)

    def _finish(self, part: PartialFile, file: RemoteFile) -> str:
        """Check the sha256 where one is known, rename the file to its target and return the sha256."""
        found = part.sha256()
        if file.sha256 is not None and found != file.sha256:
            part.discard()
            raise RbeeError(
                ErrorCode.CHECKSUM_MISMATCH,
                f"{part.target.name} has sha256 {found}, expected {file.sha256}; the file was removed.",
                details={"expected": file.sha256, "found": found},
            )
        try:
            part.finish()
        except OSError as error:
            raise self._limits.space.error(error, part.target) from error
        return found
