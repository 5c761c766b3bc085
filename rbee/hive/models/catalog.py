"""Keep the catalog of models in a database, compared with the files whenever it is read.

All blocking work runs in one thread of its own. The database library is imported there too, while the
daemon already serves, because that import takes longer than the rest of a cold start.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from rbee.config.paths import storage_error
from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import CatalogEntry
from rbee.contracts.references import shown_reference
from rbee.errors import RbeeError
from rbee.gguf.header import parts_of
from rbee.hive.memory import LoadedModel
from rbee.model_reference import parse_reference

if TYPE_CHECKING:
    from rbee.hive.models.catalog_table import CatalogRow, CatalogTable

T = TypeVar("T")
log = logging.getLogger(__name__)
_SQLITE_MAGIC: Final = b"SQLite format 3\0"


def model_id(reference: str) -> str:
    """Return the id of a model from its canonical reference: readable, fit for a URL, always the same."""
    last = re.split(r"[/:]", reference.partition("#")[0].removesuffix(".gguf"))[-1].lower()
    slug = re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:60] or "model"
    return f"{slug}-{hashlib.sha256(reference.encode()).hexdigest()[:8]}"


def check_database_file(path: Path) -> None:
    """Raise RbeeError STATE_CORRUPT if *path* is there and is not a SQLite database, before anything else starts."""
    try:
        with path.open("rb") as file:
            beginning = file.read(len(_SQLITE_MAGIC))
    except FileNotFoundError:
        return
    except OSError as error:
        raise RbeeError(ErrorCode.PERMISSION_DENIED, f"{path} cannot be read: {error.strerror}.") from error
    if beginning not in (b"", _SQLITE_MAGIC):
        raise RbeeError(
            ErrorCode.STATE_CORRUPT,
            f"{path} is not a database.",
            details={"path": str(path)},
            hint=f"Move it away (mv {path} {path}.broken); the models themselves stay, "
            "and are cataloged again when they are used.",
        )


class Catalog:
    """The models of this machine, by canonical reference.

    Args:
        url: SQLAlchemy URL of the database.
        on_change: called in the event loop after every change.
    """

    def __init__(self, url: str, on_change: Callable[[], None]) -> None:
        self._url = url
        self._on_change = on_change
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="catalog")
        self._table: CatalogTable | None = None
        self._known: dict[str, CatalogRow] = {}
        self._peaks: dict[str, int] = {}
        self._wanted = False
        self._until_wanted: list[Callable[[], bool]] = []

    async def all(self) -> list[CatalogEntry]:
        """Return all models, sorted by reference, each with what is wrong with its file now.

        Raises RbeeError STATE_CORRUPT if the database cannot be used.
        """
        return await self._run(self._all)

    async def find(self, reference: str) -> CatalogEntry | None:
        """Return the model of a canonical reference."""
        return await self._run(lambda: self._find(reference))

    async def get(self, name: str) -> CatalogEntry:
        """Return a model by id or reference, in any spelling. Raises RbeeError MODEL_NOT_FOUND."""
        shown = shown_reference(name)
        names = {shown}
        with contextlib.suppress(RbeeError):  # an id is no reference
            names.add(parse_reference(name).canonical)
        for entry in await self.all():
            if not names.isdisjoint((entry.id, entry.reference)):
                return entry
        raise RbeeError(
            ErrorCode.MODEL_NOT_FOUND, f"There is no model '{shown}' in the catalog.", details={"model": shown}
        )

    async def digests(self, reference: str) -> tuple[str, ...]:
        """Return the SHA-256 of each file of a model as it was cataloged; empty where that is not known."""
        await self._run(self._opened)
        known = self._known.get(reference)
        return () if known is None else known.digests

    async def put(self, entry: CatalogEntry, digests: Sequence[str] = ()) -> None:
        """Store a model whose files are whole and in place, with the SHA-256 of each."""
        await self._run(lambda: self._put(entry, tuple(digests)))
        self._on_change()

    async def confirm(self, entry: CatalogEntry, digests: Sequence[str]) -> None:
        """Note that the files of a model are what they were; a database that cannot store it now is logged."""
        await self._run(lambda: self._confirm(entry, tuple(digests)))
        self._on_change()

    def put_soon(self, entry: CatalogEntry) -> None:
        """Store a model that is used in place, without waiting; later reads of the catalog see it.

        A database that cannot be read or cannot store it is logged; the model can be used without a row.
        """
        self._soon(lambda: self._put_if_new(entry))

    def peak_known(self, loaded: LoadedModel) -> int | None:
        """Return the most bytes that such a load took, as far as is known without waiting for the database."""
        return self._peaks.get(loaded.id)

    async def peak(self, loaded: LoadedModel) -> int | None:
        """Return the most bytes that such a load took; None if it was never measured, or the database is unusable."""
        with contextlib.suppress(RbeeError):
            await self._run(self._opened)
        return self.peak_known(loaded)

    def note_peak(self, loaded: LoadedModel, peak_bytes: int, at_unix: int) -> None:
        """Store what a load took if that is more than before, without waiting."""
        if peak_bytes > self._peaks.get(loaded.id, 0):
            self._soon(lambda: self._put_peak(loaded, peak_bytes, at_unix))

    async def remove(self, entry: CatalogEntry, *, with_files: bool) -> None:
        """Remove a model; *with_files* deletes its files as well, unless another row uses them too."""
        await self._run(lambda: self._remove(entry, with_files=with_files))
        self._on_change()

    async def remove_files(self, path: str) -> None:
        """Delete the files of a model that lies at *path*, unless a row uses them."""
        await self._run(lambda: self._remove_files(path))

    async def close(self) -> None:
        """Store what is pending and close the database."""
        if self._until_wanted:
            try:
                await self._run(self._opened)
            except RbeeError as error:
                _log_not_stored(error)
        if self._table is not None:
            await self._run(self._table.close)
        self._thread.shutdown(wait=False)

    def _soon(self, work: Callable[[], bool]) -> None:
        """Start *work* without waiting for it; a database that nothing has read yet is not opened for this."""
        if not self._wanted:
            self._until_wanted.append(work)
            return
        asyncio.get_running_loop().run_in_executor(self._thread, work).add_done_callback(self._stored)

    async def _run(self, work: Callable[[], T]) -> T:
        self._wanted = True
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _opened(self) -> CatalogTable:
        if self._table is None:
            from rbee.hive.models.catalog_table import CatalogTable

            table = CatalogTable(self._url)
            self._known = {row.entry.reference: row for row in table.all()}
            self._peaks = table.peaks()
            self._table = table
            waiting, self._until_wanted = self._until_wanted, []
            for work in waiting:
                _tried(work)
        return self._table

    def _all(self) -> list[CatalogEntry]:
        self._opened()
        return [_compared(row) for _, row in sorted(self._known.items())]

    def _find(self, reference: str) -> CatalogEntry | None:
        self._opened()
        known = self._known.get(reference)
        return None if known is None else _compared(known)

    def _put(self, entry: CatalogEntry, digests: tuple[str, ...] = ()) -> None:
        row = _row_now(entry, digests)
        self._opened().put(row)
        self._known[entry.reference] = row

    def _confirm(self, entry: CatalogEntry, digests: tuple[str, ...]) -> None:
        table = self._opened()
        row = self._known[entry.reference] = _row_now(entry, digests)
        _tried(lambda: table.put(row))

    def _put_if_new(self, entry: CatalogEntry) -> bool:
        self._opened()
        known = self._known.get(entry.reference)
        if known is not None:
            as_known = entry.model_copy(update={"downloaded_at_unix": known.entry.downloaded_at_unix})
            now = _compared(known)
            if as_known == now:
                return False
            log.warning("a model's file differs from the catalog", extra={"fields": {"problem": now.problem}})
        self._confirm(entry, ())
        return True

    def _put_peak(self, loaded: LoadedModel, peak_bytes: int, at_unix: int) -> bool:
        table = self._opened()
        if peak_bytes > self._peaks.get(loaded.id, 0):
            table.put_peak(loaded, peak_bytes, at_unix)
            self._peaks[loaded.id] = peak_bytes
        return False

    def _stored(self, stored: asyncio.Future[bool]) -> None:
        if stored.cancelled():
            return
        error = stored.exception()
        if isinstance(error, RbeeError | OSError):
            _log_not_stored(error)
        elif stored.result():
            self._on_change()

    def _remove(self, entry: CatalogEntry, *, with_files: bool) -> None:
        table = self._opened()
        if with_files:  # first: on a full disk only that makes room for the change of the database
            self._remove_files(entry.local_path, besides=entry.reference)
        table.remove(entry.id)
        self._known.pop(entry.reference, None)

    def _remove_files(self, path: str, *, besides: str | None = None) -> None:
        """Delete the files of the model at *path*, unless a row uses them, other than that of *besides*."""
        if any(row.entry.local_path == path for name, row in self._known.items() if name != besides):
            return
        for part in parts_of(Path(path)):
            if part.is_dir() and not part.is_symlink():  # no download made that
                log.warning("a folder lies where a model was", extra={"fields": {"path": str(part)}})
                continue
            try:
                part.unlink(missing_ok=True)
            except OSError as error:
                raise storage_error(error, part) from error


def _row_now(entry: CatalogEntry, digests: tuple[str, ...]) -> CatalogRow:
    """Return the row of a model whose files are as they are now."""
    from rbee.hive.models.catalog_table import CatalogRow

    modified_ns = _modified_ns([part.stat() for part in parts_of(Path(entry.local_path))])
    return CatalogRow(entry, modified_ns, digests or ((entry.sha256,) if entry.sha256 else ()))


def _tried(work: Callable[[], object]) -> None:
    try:
        work()
    except (RbeeError, OSError) as error:
        _log_not_stored(error)


def _log_not_stored(error: RbeeError | OSError) -> None:
    log.error("the catalog could not store a row", extra={"fields": {"reason": str(error)}})


def _compared(row: CatalogRow) -> CatalogEntry:
    """Return the entry of *row* with what is wrong with its files, if anything is."""
    entry = row.entry
    found = []
    for part in parts_of(Path(entry.local_path)):
        try:
            found.append(part.stat())
        except OSError as error:
            missing = isinstance(error, FileNotFoundError | NotADirectoryError)
            problem = f"{part} is gone" if missing else f"{part} cannot be read: {error.strerror}"
            return entry.model_copy(update={"problem": problem})
    size = sum(info.st_size for info in found)
    if size != entry.size_bytes:
        problem = f"{entry.local_path} has changed: {size} bytes long, cataloged with {entry.size_bytes}"
        return entry.model_copy(update={"problem": problem})
    if _modified_ns(found) != row.modified_ns:
        return entry.model_copy(update={"problem": f"{entry.local_path} has changed since it was cataloged"})
    return entry


def _modified_ns(parts: Sequence[os.stat_result]) -> int:
    """Return when the file of a model was last changed; for a split one, a number that a change of any part changes."""
    if len(parts) == 1:
        return parts[0].st_mtime_ns
    times = " ".join(str(part.st_mtime_ns) for part in parts)
    return int.from_bytes(hashlib.sha256(times.encode()).digest()[:7])
