"""Ensure that a model is here: find it in the catalog, or download it once for all who ask, and check it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rbee.client.retry import DOWNLOAD
from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import CatalogEntry, DownloadProgress, Neighbour, RunningDownload
from rbee.errors import RbeeError
from rbee.gguf.header import GgufHeader, parts_of
from rbee.hive.models import local_sources, neighbours
from rbee.hive.models.catalog import Catalog, model_id
from rbee.hive.models.download import Download, count_outcome
from rbee.hive.models.fetching import FileFetcher
from rbee.hive.models.file_selection import explain_choice
from rbee.hive.models.headers import HeaderReader
from rbee.hive.models.limits import DownloadLimits
from rbee.hive.models.part_sweep import expired_parts
from rbee.hive.models.partial_file import has_content, moved_to
from rbee.hive.models.remote import RemoteFile
from rbee.model_reference import FileRef, HubRef, ModelRef, PackageRef, UrlRef

log = logging.getLogger(__name__)

KEPT: Final = 64


class Downloads:
    """All downloads of this machine. Two requests for one model are one download.

    A download goes on as long as somebody waits for it, see `Download.awaited`.

    Args:
        folder: where fetched models go.
        chance: gives random numbers from 0 to 1, for the delays of retries.
    """

    def __init__(
        self,
        catalog: Catalog,
        folder: Path,
        limits: DownloadLimits,
        *,
        headers: HeaderReader,
        chance: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._catalog = catalog
        self._folder = folder
        self._limits = limits
        self._headers = headers
        self._fetcher = FileFetcher(folder, limits)
        self._chance = chance
        self._clock = clock
        self._wall_clock = wall_clock
        self._downloads: dict[str, Download] = {}
        self._closed = False

    def start(self, ref: ModelRef, offered: Sequence[Neighbour] = (), *, origin: bool = True) -> Download:
        """Start to ensure the model, or join a download of it that runs. Raises RbeeError DRAINING after `close`.

        Args:
            offered: the hives to copy it from, before it is fetched from its origin.
            origin: whether it is fetched from there at all.
        """
        if self._closed:
            raise RbeeError(ErrorCode.DRAINING, "The hive is stopping and downloads no models.")
        reference = ref.canonical
        current = self._downloads.get(reference)
        if current is not None and current.running and not current.canceled:
            current.offer(offered, origin=origin)
            return current
        waits = list(DOWNLOAD.waits(self._chance))
        download = Download(reference, self._clock, waits, grace_s=self._limits.grace_s)
        download.offer(offered, origin=origin)
        download.begin(self._ensure(ref, download))
        self._downloads.pop(reference, None)
        self._downloads[reference] = download
        for old in [name for name, known in self._downloads.items() if not known.running][:-KEPT]:
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

    def listed(self) -> list[RunningDownload]:
        """Return the downloads that run, with their progress."""
        return [
            RunningDownload(
                reference=known.reference,
                stage=known.progress.stage,
                bytes_downloaded=known.progress.bytes_downloaded,
                bytes_total=known.progress.bytes_total,
                speed_mbps=known.progress.speed_mbps,
                source=known.progress.source,
            )
            for known in self.running
        ]

    @property
    def running(self) -> list[Download]:
        """Return the downloads that have not ended."""
        return [known for known in self._downloads.values() if known.running]

    async def cancel(self, reference: str) -> None:
        """Cancel a download and wait for its end; one that was canceled before is left as it is.

        Raises RbeeError MODEL_NOT_FOUND where none of the model runs.
        """
        download = self._downloads.get(reference)
        if download is None or not (download.running or download.canceled):
            raise RbeeError(
                ErrorCode.MODEL_NOT_FOUND,
                f"No download of '{reference}' is running.",
                details={"model": reference},
                hint="See what runs: rbee-keeper models list --node NODE",
            )
        download.cancel("an operator canceled it")
        await download.ended()

    async def sweep(self) -> None:
        """Remove the parts of downloads that are too old, or that no download could continue."""
        found = await asyncio.to_thread(
            lambda: list(expired_parts(self._folder, now=self._wall_clock(), keep_s=self._limits.keep_s))
        )
        # Not in a thread: no download may begin between the look and the removal.
        active = self._fetcher.active
        removed = [path for target, path in found if target not in active]
        for path in removed:
            path.unlink(missing_ok=True)
        if removed:
            log.info("parts of unfinished downloads removed", extra={"fields": {"files": [str(p) for p in removed]}})

    async def close(self) -> None:
        """Stop all downloads; what was received is kept for a later one."""
        self._closed = True
        for download in self.running:
            download.stop()
        for download in self.running:
            await download.ended()

    async def _ensure(self, ref: ModelRef, download: Download) -> CatalogEntry:
        match ref:
            case FileRef():
                path = local_sources.locate_file(ref)
                entry = self._used_in_place(ref, path, await self._headers.check(path))
            case PackageRef():
                path = await asyncio.to_thread(local_sources.locate_package, ref)
                # What is installed beside the hive runs as the hive: its file needs no more distrust.
                entry = self._used_in_place(ref, path, await self._headers.read(path))
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
                fetched=download.fetched,
            )
        )
        return entry

    def _used_in_place(self, ref: FileRef | PackageRef, path: Path, header: GgufHeader) -> CatalogEntry:
        """Return the row of a file that stays where it is; it is stored in the background."""
        entry = self._entry(ref, path, header, None)
        self._catalog.put_soon(entry)
        return entry

    async def _obtain(self, ref: HubRef | UrlRef, download: Download) -> CatalogEntry:
        known = await self._catalog.find(ref.canonical)
        if known is not None:
            if known.problem is None:
                return known
            log.warning("a model's file differs from the catalog", extra={"fields": {"problem": known.problem}})
            if (unchanged := await self._unchanged(known, download)) is not None:
                return unchanged
        with count_outcome():
            return await self._download(ref, download, known)

    async def _unchanged(self, known: CatalogEntry, download: Download) -> CatalogEntry | None:
        """Return the row of a model whose files have the bytes that they had, though they were copied or touched.

        They may lie in another home than the row says: then that was moved here.
        """
        digests = await self._catalog.digests(known.reference)
        download.restage(stage="verifying")
        path = Path(known.local_path)
        for place in dict.fromkeys((path, moved_to(self._folder, path))):
            if await asyncio.to_thread(has_content, parts_of(place), known.size_bytes, digests):
                entry = known.model_copy(update={"local_path": str(place), "problem": None})
                await self._catalog.confirm(entry, digests)
                log.info("the model's bytes are those of the catalog", extra={"fields": {"path": str(place)}})
                return entry
        return None

    async def _download(self, ref: HubRef | UrlRef, download: Download, known: CatalogEntry | None) -> CatalogEntry:
        """Download a model that is not here, or whose files differ from the *known* row, which stay until then."""
        copied = await neighbours.copy(ref, download, self._fetcher)
        paths, digests = copied or await self._fetch(ref, download, known)
        try:
            header = await self._headers.check(paths[0])
        except RbeeError as error:
            if error.code is ErrorCode.MODEL_INVALID:
                for path in paths:
                    path.unlink(missing_ok=True)
            raise
        entry = self._entry(ref, paths[0], header, digests[0])
        await self._catalog.put(entry, digests)
        if known is not None and known.local_path != entry.local_path and self._owns(known):
            await self._catalog.remove_files(known.local_path)
        return entry

    async def _fetch(
        self, ref: HubRef | UrlRef, download: Download, known: CatalogEntry | None
    ) -> tuple[list[Path], list[str]]:
        """Download a model from its origin."""
        files = local_sources.plan_url(ref) if isinstance(ref, UrlRef) else await self._plan(ref, download, known)
        return await self._fetcher.fetch(download, files, doubted=known is not None)

    async def _plan(self, ref: HubRef, download: Download, known: CatalogEntry | None) -> list[RemoteFile]:
        """Return the files that the hub has; where it does not answer, those that were fetched from it before."""
        from rbee.hive.models import hub

        try:
            files = await self._fetcher.retrying(download, lambda: hub.plan(ref, self._limits.allowed))
        except RbeeError as error:
            if known is not None or error.code is not ErrorCode.DOWNLOAD_FAILED:
                raise
            try:
                files = await asyncio.to_thread(local_sources.plan_fetched, ref, self._folder)
            except RbeeError:
                raise error from None
        # Relative to the repository, as the reference has them.
        download.remark = explain_choice(ref, [file.path.removeprefix(f"{ref.folder}/") for file in files])
        log.info("files chosen", extra={"fields": {"model": ref.canonical, "choice": download.remark}})
        return files

    def _owns(self, entry: CatalogEntry) -> bool:
        """Return whether the files of *entry* lie in this home: one that was copied may name those of another."""
        return Path(entry.local_path).is_relative_to(self._folder)

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
            capabilities=list(header.capabilities),
            downloaded_at_unix=int(self._wall_clock()),
        )
