"""Ensure that a model is here: find it in the catalog, or download it once for all who ask, and check it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from rbee.client.retry import DOWNLOAD
from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import CatalogEntry, DownloadProgress
from rbee.errors import RbeeError
from rbee.gguf.header import GgufHeader, parts_of, read_header
from rbee.hive.models import local_sources
from rbee.hive.models.catalog import Catalog, model_id
from rbee.hive.models.download import Download, count_outcome
from rbee.hive.models.partial_file import PartialFile, check_space, disk_error, sha256_of
from rbee.hive.models.reference import FileRef, HubRef, ModelRef, PackageRef, UrlRef
from rbee.hive.models.remote import BrokenTransferError, RemoteFile

T = TypeVar("T")
log = logging.getLogger(__name__)

KEPT: Final = 64


class Downloads:
    """All downloads of this machine. Two requests for one model are one download.

    Args:
        folder: where fetched models go.
        stall_s: seconds without a byte that break a transfer.
        chance: gives random numbers from 0 to 1, for the delays of retries.
    """

    def __init__(
        self,
        catalog: Catalog,
        folder: Path,
        *,
        stall_s: float,
        chance: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._catalog = catalog
        self._folder = folder
        self._stall_s = stall_s
        self._chance = chance
        self._clock = clock
        self._wall_clock = wall_clock
        self._downloads: dict[str, Download] = {}
        self._locks: dict[Path, asyncio.Lock] = {}
        self._closed = False

    def start(self, ref: ModelRef) -> Download:
        """Start to ensure the model, or join a download of it that runs. Raises RbeeError DRAINING after `close`."""
        if self._closed:
            raise RbeeError(ErrorCode.DRAINING, "The hive is stopping and downloads no models.")
        reference = ref.canonical
        current = self._downloads.get(reference)
        if current is not None and current.task is not None and not current.task.done():
            return current
        download = Download(reference, self._clock, list(DOWNLOAD.waits(self._chance)))
        download.task = asyncio.ensure_future(self._ensure(ref, download))
        # A failure that nobody waits for is logged, and stays in `get`.
        download.task.add_done_callback(_log_end)
        self._downloads.pop(reference, None)
        self._downloads[reference] = download
        for old in [name for name, known in self._downloads.items() if known.task and known.task.done()][:-KEPT]:
            del self._downloads[old]
        return download

    async def ensure(self, ref: ModelRef) -> CatalogEntry:
        """Return the model once it is here, however long that takes. Raises RbeeError if it fails."""
        return await self.start(ref).result()

    def get(self, reference: str) -> Download:
        """Return the latest download of a model. Raises RbeeError MODEL_NOT_FOUND if there was none."""
        download = self._downloads.get(reference)
        if download is None:
            raise RbeeError(
                ErrorCode.MODEL_NOT_FOUND,
                f"There is no download of '{reference}'.",
                details={"model": reference},
                hint="Start it first: POST /v1/models/download",
            )
        return download

    @property
    def running(self) -> int:
        """Count the downloads that have not ended."""
        return sum(1 for known in self._downloads.values() if known.task is not None and not known.task.done())

    async def close(self) -> None:
        """Stop all downloads; what was received is kept for a later one."""
        self._closed = True
        tasks = [known.task for known in self._downloads.values() if known.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ensure(self, ref: ModelRef, download: Download) -> CatalogEntry:
        match ref:
            case FileRef():
                entry = await self._use_in_place(ref, local_sources.locate_file(ref))
            case PackageRef():
                entry = await self._use_in_place(ref, await asyncio.to_thread(local_sources.locate_package, ref))
            case HubRef() | UrlRef():
                entry = await self._obtain(ref, download)
        download.show(
            DownloadProgress(
                stage="complete",
                bytes_downloaded=entry.size_bytes,
                bytes_total=entry.size_bytes,
                local_path=entry.local_path,
                model_id=entry.id,
                entry=entry,
            )
        )
        return entry

    async def _use_in_place(self, ref: FileRef | PackageRef, path: Path) -> CatalogEntry:
        """Read the header of a file that stays where it is; its row is stored in the background."""
        header = await asyncio.to_thread(read_header, path)
        entry = self._entry(ref, path, header, None)
        self._catalog.put_soon(entry)
        return entry

    async def _obtain(self, ref: HubRef | UrlRef, download: Download) -> CatalogEntry:
        known = await self._catalog.find(ref.canonical)
        if known is not None and known.problem is None:
            return known
        with count_outcome():
            return await self._download(ref, download, known)

    async def _download(self, ref: HubRef | UrlRef, download: Download, known: CatalogEntry | None) -> CatalogEntry:
        """Download a model that is not here, or whose file differs from the *known* row."""
        if isinstance(ref, UrlRef):
            files = local_sources.plan_url(ref)
        else:
            from rbee.hive.models import hub

            files = await self._retrying(download, lambda: hub.plan(ref))
        if known is not None:
            log.warning("a model's file differs from the catalog", extra={"fields": {"problem": known.problem}})
            await self._catalog.remove(known, with_files=True)
        path, sha256 = await self._fetch(download, files)
        try:
            header = await asyncio.to_thread(read_header, path)
        except RbeeError as error:
            if error.code is ErrorCode.MODEL_INVALID:
                for part in parts_of(path):
                    part.unlink(missing_ok=True)
            raise
        entry = self._entry(ref, path, header, sha256)
        await self._catalog.put(entry)
        return entry

    async def _fetch(self, download: Download, files: list[RemoteFile]) -> tuple[Path, str]:
        """Download all *files* that are not here yet; return the path and the sha256 of the first."""
        from rbee.hive.models import transfer  # imports httpx, which a start without a download does not need

        targets = [self._folder / file.path for file in files]
        total = sum(file.size for file in files if file.size) if all(file.size for file in files) else None
        before = 0
        digest = ""
        async with self._lock(targets[0]), transfer.new_client(self._stall_s) as client:
            if total is not None:
                await asyncio.to_thread(_check_space, self._folder, files, targets)
            for file, target in zip(files, targets, strict=True):
                partial = PartialFile(target)
                found = await asyncio.to_thread(_present, target, file)

                async def attempt(
                    file: RemoteFile = file, partial: PartialFile = partial, before: int = before
                ) -> None:
                    await transfer.fetch(
                        client,
                        file,
                        partial,
                        lambda have, size: download.count(before + have, size if len(files) == 1 else total),
                    )

                if found is None:
                    found = await self._fetch_one(download, file, partial, attempt)
                digest = digest or found
                before += await asyncio.to_thread(lambda target=target: target.stat().st_size)  # type: ignore[misc]
        return targets[0], digest

    async def _fetch_one(
        self, download: Download, file: RemoteFile, partial: PartialFile, attempt: Callable[[], Awaitable[None]]
    ) -> str:
        """Download and check one file; where the remains of an earlier download may be wrong, download it again."""
        resumed = await asyncio.to_thread(partial.size) > 0
        while True:
            await self._retrying(download, attempt)
            download.restage(stage="verifying")
            try:
                return await asyncio.to_thread(_finish, partial, file)
            except RbeeError as error:
                if error.code is not ErrorCode.CHECKSUM_MISMATCH or not resumed:
                    raise
                log.warning(
                    "the remains of an earlier download were not usable", extra={"fields": {"reason": error.message}}
                )
                resumed = False

    def _entry(self, ref: ModelRef, path: Path, header: GgufHeader, sha256: str | None) -> CatalogEntry:
        return CatalogEntry(
            id=model_id(ref.canonical),
            provider=ref.provider,
            reference=ref.canonical,
            local_path=str(path),
            size_bytes=header.size_bytes,
            sha256=sha256,
            quantization=header.quantization,
            architecture=header.architecture,
            context_length=header.context_length,
            downloaded_at_unix=int(self._wall_clock()),
        )

    async def _retrying(self, download: Download, work: Callable[[], Awaitable[T]]) -> T:
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

    @asynccontextmanager
    async def _lock(self, target: Path) -> AsyncIterator[None]:
        """Hold the lock of a file: two references may mean the same one."""
        async with self._locks.setdefault(target, asyncio.Lock()):
            yield


def _check_space(folder: Path, files: list[RemoteFile], targets: list[Path]) -> None:
    missing = [(file, target) for file, target in zip(files, targets, strict=True) if not target.exists()]
    check_space(folder, sum((file.size or 0) - PartialFile(target).size() for file, target in missing))


def _present(target: Path, file: RemoteFile) -> str | None:
    """Return the sha256 of a file that is here already; remove one whose sha256 is wrong."""
    if not target.exists():
        return None
    found = sha256_of(target)
    if file.sha256 in (None, found):
        return found
    target.unlink()
    return None


def _finish(partial: PartialFile, file: RemoteFile) -> str:
    """Check the sha256 where one is known, rename the file to its target and return the sha256."""
    found = partial.sha256()
    if file.sha256 is not None and found != file.sha256:
        partial.discard()
        raise RbeeError(
            ErrorCode.CHECKSUM_MISMATCH,
            f"{partial.target.name} has sha256 {found}, expected {file.sha256}; the file was removed.",
            details={"expected": file.sha256, "found": found},
        )
    try:
        partial.finish()
    except OSError as error:
        raise disk_error(error, partial.target) from error
    return found


def _log_end(task: asyncio.Task[CatalogEntry]) -> None:
    if task.cancelled():
        return
    error = task.exception()
    if isinstance(error, RbeeError):
        log.error("download failed", extra={"fields": {"code": error.code.value, "reason": error.message}})
    elif error is not None:
        log.error("BUG: a download died", exc_info=error)
