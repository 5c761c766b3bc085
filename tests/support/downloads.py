"""Downloads of a home of its own for a test, from the stand-in hub."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rbee.contracts.models import CatalogEntry, DownloadProgress
from rbee.errors import RbeeError
from rbee.hive.models.catalog import Catalog
from rbee.hive.models.downloads import Downloads
from rbee.hive.models.headers import HeaderReader
from rbee.hive.models.limits import DownloadLimits
from rbee.model_reference import FileRef, HubRef, PackageRef, UrlRef

T = TypeVar("T")
REPO, FILE = "bees/tiny-GGUF", "tiny-Q4_K_M.gguf"
REF = HubRef(REPO)


def within(home: Path, work: Callable[[Downloads, Catalog], Awaitable[T]], *, stall_s: float = 5, **limited: Any) -> T:
    """Do something with the downloads of a home; the delays of retries are a hundredth of what they are."""
    home.mkdir(exist_ok=True)

    async def whole() -> T:
        catalog = Catalog(f"sqlite:///{home / 'models.db'}", lambda: None)
        limits = DownloadLimits(stall_s, **limited)
        downloads = Downloads(catalog, home / "models", limits, headers=HeaderReader(), chance=lambda: -0.49)
        try:
            return await work(downloads, catalog)
        finally:
            await downloads.close()
            await catalog.close()

    return asyncio.run(whole())


def fetched(
    home: Path, ref: HubRef | FileRef | UrlRef | PackageRef = REF, *, stall_s: float = 5, **limited: Any
) -> CatalogEntry:
    """Have a model, and give its row."""
    return within(home, lambda downloads, _: downloads.ensure(ref), stall_s=stall_s, **limited)


def failure(
    home: Path, ref: HubRef | FileRef | UrlRef | PackageRef = REF, *, stall_s: float = 5, **limited: Any
) -> RbeeError:
    """Fail to have a model, and give the error."""
    with pytest.raises(RbeeError) as caught:
        fetched(home, ref, stall_s=stall_s, **limited)
    return caught.value


def files(home: Path) -> list[str]:
    """Name the files that a home has of models."""
    return sorted(path.name for path in (home / "models").rglob("*") if path.is_file())


async def watched(downloads: Downloads, ref: HubRef) -> list[DownloadProgress]:
    """Download a model, and give what was shown of it."""
    return [step async for step in downloads.start(ref).watch()]


async def watch_and_list(downloads: Downloads, catalog: Catalog) -> tuple[list[DownloadProgress], list[CatalogEntry]]:
    """Download the model, and give what was shown of it and what the catalog then has."""
    return await watched(downloads, REF), await catalog.all()
