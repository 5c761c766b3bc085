"""Share the models of this hive with other hives: which files a model has, and how many are sent at once."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import CatalogEntry, ModelFile, ModelFiles
from rbee.errors import RbeeError
from rbee.gguf.header import parts_of
from rbee.hive.models.catalog import Catalog
from rbee.hive.models.send_rate import SendRate
from rbee.model_reference import HubRef, parse_reference

AT_ONCE: Final = 8
_BITS: Final = 8
_MEGA: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class SharedFile:
    """One file of a model of the catalog, as it is now."""

    path: Path
    sha256: str
    stat: os.stat_result


class Sharing:
    """What other hives may copy: the models of the catalog whose files are as they were when they were checked.

    Args:
        folder: where fetched models lie.
        mbps: megabits per second that are sent in all; None does not bound them.
    """

    def __init__(self, catalog: Catalog, folder: Path, *, mbps: float | None) -> None:
        self._catalog = catalog
        self._folder = folder
        self._rate = None if mbps is None else SendRate(mbps * _MEGA / _BITS)
        self._sending = 0

    @property
    def bounded(self) -> bool:
        """Return whether what is sent has a rate."""
        return self._rate is not None

    async def files(self, model_id: str) -> ModelFiles:
        """Return the files of a model.

        Raises RbeeError MODEL_NOT_FOUND where it is not in the catalog, or not as it was cataloged.
        """
        entry, digests = await self._entry(model_id)
        paths = parts_of(Path(entry.local_path))
        try:
            sizes = await asyncio.to_thread(lambda: [path.stat().st_size for path in paths])
        except OSError as error:
            raise _not_shared(entry, f"a file of it is gone: {error.filename}") from error
        return ModelFiles(
            reference=entry.reference,
            files=[
                ModelFile(name=self._name(entry, path), size_bytes=size, sha256=digest)
                for path, size, digest in zip(paths, sizes, digests, strict=True)
            ],
        )

    async def file(self, model_id: str, number: int) -> SharedFile:
        """Return a file of a model by its number, from 0. Raises RbeeError MODEL_NOT_FOUND, as `files` does."""
        entry, digests = await self._entry(model_id)
        paths = parts_of(Path(entry.local_path))
        if number >= len(paths):
            raise RbeeError(
                ErrorCode.MODEL_NOT_FOUND,
                f"{entry.reference} has no file {number}: it has {len(paths)}, counted from 0.",
                details={"model": entry.reference, "files": len(paths)},
            )
        try:
            stat = await asyncio.to_thread(paths[number].stat)
        except OSError as error:
            raise _not_shared(entry, f"{paths[number]} is gone") from error
        return SharedFile(paths[number], digests[number], stat)

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Count a file while it is sent. Raises RbeeError TOO_MANY_REQUESTS where too many are."""
        if self._sending >= AT_ONCE:
            raise RbeeError(
                ErrorCode.TOO_MANY_REQUESTS,
                f"This hive sends {self._sending} files to other hives already, as many as it may at once.",
                details={"sending": self._sending},
            )
        self._sending += 1
        try:
            yield
        finally:
            self._sending -= 1

    async def pace(self, size: int) -> None:
        """Wait until *size* more bytes may be sent."""
        if self._rate is not None:
            await asyncio.sleep(self._rate.reserve(size, time.monotonic()))

    async def _entry(self, model_id: str) -> tuple[CatalogEntry, tuple[str, ...]]:
        """Return a model that may be shared, and the SHA-256 of each of its files."""
        entry = await self._catalog.get(model_id)
        digests = await self._catalog.digests(entry.reference)
        reason = entry.problem
        if reason is None and len(digests) != len(parts_of(Path(entry.local_path))):
            reason = "its checksums are not known"
        if reason is not None:
            raise _not_shared(entry, reason)
        return entry, digests

    def _name(self, entry: CatalogEntry, path: Path) -> str:
        """Return the path of a file in its repository; the name alone for one that is in none."""
        ref = parse_reference(entry.reference)
        own = self._folder / ref.folder if isinstance(ref, HubRef) else path.parent
        return str(path.relative_to(own)) if path.is_relative_to(own) else path.name


def _not_shared(entry: CatalogEntry, reason: str) -> RbeeError:
    return RbeeError(
        ErrorCode.MODEL_NOT_FOUND,
        f"{entry.reference} cannot be copied from here: {reason}.",
        details={"model": entry.reference, "reason": reason},
        hint="Only what was downloaded and has not changed since is given to other hives.",
    )
