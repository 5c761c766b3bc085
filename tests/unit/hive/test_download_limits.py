"""A download is bounded in size and disk, ends when nobody wants it, and leaves nothing that is of no use."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.hive.models.addresses import AllowedSources
from rbee.hive.models.catalog import Catalog
from rbee.hive.models.disk_space import DiskSpace
from rbee.hive.models.download import Download
from rbee.hive.models.downloads import Downloads
from rbee.hive.models.fetching import FileFetcher
from rbee.hive.models.headers import HeaderReader
from rbee.hive.models.limits import GB, DownloadLimits
from rbee.hive.models.part_sweep import expired_parts
from rbee.hive.models.partial_file import PartialFile
from rbee.hive.models.remote import RemoteFile
from rbee.model_reference import HubRef, UrlRef
from tests.support.faults import Slow
from tests.support.gguf_files import write_gguf
from tests.support.hostile_host import HostileHost
from tests.support.hub import Hub
from tests.support.waiting import slowness

MIB = 1024 * 1024
REPO, FILE = "bees/tiny-GGUF", "tiny-Q4_K_M.gguf"
REF = HubRef(REPO)


@pytest.fixture(name="host")
def _host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileHost]:
    with HostileHost(tmp_path) as host:
        monkeypatch.setenv("SSL_CERT_FILE", host.certificate)
        yield host


@pytest.fixture(name="hub")
def _hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as hub:
        hub.add(REPO, FILE, write_gguf(tmp_path / "m.gguf", size=3 * MIB).read_bytes())
        for name, value in hub.environ(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield hub


def within(home: Path, work: Callable[[Downloads], Awaitable[None]], **limited: Any) -> None:
    """Do something with the downloads of a home."""

    async def whole() -> None:
        catalog = Catalog(f"sqlite:///{home / 'models.db'}", lambda: None)
        limits = DownloadLimits(5, allowed=AllowedSources.parse(["localhost"]), **limited)
        downloads = Downloads(catalog, home / "models", limits, headers=HeaderReader(), chance=lambda: -0.49)
        try:
            async with asyncio.timeout(30 * slowness()):
                await work(downloads)
        finally:
            await downloads.close()
            await catalog.close()

    asyncio.run(whole())


def failure(home: Path, ref: HubRef | UrlRef, **limited: Any) -> RbeeError:
    caught: list[RbeeError] = []

    async def ask(downloads: Downloads) -> None:
        with pytest.raises(RbeeError) as error:
            await downloads.ensure(ref)
        caught.append(error.value)

    within(home, ask, **limited)
    return caught[0]


def files(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "models").rglob("*") if path.is_file())


def test_an_answer_without_an_end_is_cut_off(tmp_path: Path, host: HostileHost) -> None:
    """An answer without a length ends at the largest size of a model, is not tried again, and is removed."""
    url = host.endless("/m.gguf", b"GGUF", headers={"ETag": '"1"'})

    error = failure(tmp_path, UrlRef(url), max_bytes=2 * MIB)

    assert error.code is ErrorCode.DOWNLOAD_FAILED
    assert "download_max_gb" in error.message
    assert len(host.seen) == 1
    assert files(tmp_path) == []


def test_a_size_beyond_the_limit_is_refused_before_a_byte(tmp_path: Path, host: HostileHost, hub: Hub) -> None:
    """A size that a server or the hub announces is compared with the limit before anything is written."""
    url = host.serve("/m.gguf", b"GGUF", {"Content-Length": str(2048 * GB)})

    assert "2048 GB" in failure(tmp_path, UrlRef(url)).message
    assert "download_max_gb" in failure(tmp_path, REF, max_bytes=MIB).message
    assert hub.downloads(REPO, FILE) == []
    assert files(tmp_path) == []


def test_more_bytes_than_announced_are_refused(tmp_path: Path, host: HostileHost) -> None:
    """A file that turns out longer than the hub said is cut off there and removed."""
    file = RemoteFile(host.endless("/m.gguf", b"GGUF"), "m.gguf", size=100_000)
    limits = DownloadLimits(5, allowed=AllowedSources.parse(["localhost"]))

    async def fetch() -> None:
        download = Download("https://localhost/m.gguf", time.monotonic, [], grace_s=30)
        await FileFetcher(tmp_path / "models", limits).fetch(download, [file])

    with pytest.raises(RbeeError, match="longer than the 100000 bytes") as caught:
        asyncio.run(fetch())
    assert caught.value.code is ErrorCode.DOWNLOAD_FAILED
    assert files(tmp_path) == []


def test_what_does_not_begin_like_a_model_is_not_fetched(tmp_path: Path, host: HostileHost) -> None:
    """The first bytes tell that a file is no GGUF; the rest is not waited for."""
    error = failure(tmp_path, UrlRef(host.endless("/m.gguf", b"<html>")))

    assert error.code is ErrorCode.MODEL_INVALID
    assert files(tmp_path) == []


def test_the_reserve_of_the_disk_stays_free(tmp_path: Path, host: HostileHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing ends where the reserve begins; what has no known length is then removed."""
    free = 4 * MIB
    reserve = DiskSpace(MIB)

    def usage(_: object) -> Any:
        written = sum(path.stat().st_size for path in (tmp_path / "models").rglob("*.part"))
        return type("Usage", (), {"free": free - written})

    monkeypatch.setattr(shutil, "disk_usage", usage)
    error = failure(tmp_path, UrlRef(host.endless("/m.gguf", b"GGUF", headers={"ETag": '"1"'})), space=reserve)

    assert error.code is ErrorCode.DISK_FULL
    assert "disk_reserve_gb" in error.message
    assert error.details["available_bytes"] >= MIB
    assert files(tmp_path) == []


def test_a_small_disk_is_not_all_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reserve is at most 5 % of the file system."""
    small = os.statvfs_result((4096, 4096, 1000, 1000, 1000, 10, 10, 10, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: small)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000 * 4096}))

    assert DiskSpace(2 * GB).fits(tmp_path, 940 * 4096)
    assert not DiskSpace(2 * GB).fits(tmp_path, 960 * 4096)


async def follow_once(download: Download) -> None:
    """Follow a download until some of it is there, and leave."""
    async with aclosing(download.watch()) as steps:
        async for step in steps:
            if step.bytes_downloaded > 0:
                return


def test_a_download_that_nobody_waits_for_ends(tmp_path: Path, hub: Hub) -> None:
    """The last who leaves takes the download along after the grace; its part stays, and the next one continues it."""
    hub.fail(REPO, FILE, Slow(MIB))

    async def leave_and_return(downloads: Downloads) -> None:
        download = downloads.start(REF)
        await follow_once(download)
        await download.ended()
        with pytest.raises(RbeeError, match="nobody waits") as caught:
            download.outcome()
        assert caught.value.code is ErrorCode.CANCELED
        assert f"{FILE}.part" in files(tmp_path)
        await downloads.ensure(REF)

    within(tmp_path, leave_and_return, grace_s=0.1)

    assert any(span not in (None, "bytes=0-") for span in hub.ranges(REPO, FILE))


def test_a_download_that_somebody_waits_for_goes_on(tmp_path: Path, hub: Hub) -> None:
    """One who leaves does not end the download of another, nor of one who comes within the grace."""
    hub.fail(REPO, FILE, Slow(6 * MIB))

    async def leave(downloads: Downloads) -> None:
        other = asyncio.ensure_future(downloads.ensure(REF))
        await follow_once(downloads.start(REF))
        assert (await other).size_bytes > 0

    within(tmp_path, leave, grace_s=0.0)

    assert len(hub.downloads(REPO, FILE)) == 1


def test_a_canceled_download_tells_its_followers(tmp_path: Path, hub: Hub) -> None:
    """An operator cancels for everybody: followers get CANCELED, a second cancel is fine, a new request resumes."""
    hub.fail(REPO, FILE, Slow(MIB))

    async def cancel(downloads: Downloads) -> None:
        download = downloads.start(REF)
        waiting = asyncio.ensure_future(downloads.ensure(REF))
        await follow_once(download)
        (row,) = downloads.listed()
        assert (row.reference, row.stage) == (REF.canonical, "downloading")
        await downloads.cancel(REF.canonical)
        await downloads.cancel(REF.canonical)
        with pytest.raises(RbeeError, match="operator") as caught:
            await waiting
        assert caught.value.code is ErrorCode.CANCELED
        assert downloads.listed() == []
        await downloads.ensure(REF)
        with pytest.raises(RbeeError):
            await downloads.cancel(REF.canonical)
        with pytest.raises(RbeeError):
            await downloads.cancel("hf:never/asked")

    within(tmp_path, cancel)

    assert any(span not in (None, "bytes=0-") for span in hub.ranges(REPO, FILE))
    assert files(tmp_path) == [FILE]


def test_what_cannot_be_continued_is_not_kept(tmp_path: Path, host: HostileHost) -> None:
    """A part whose server names no version of the file is removed when its download ends."""

    async def cancel(downloads: Downloads) -> None:
        ref = UrlRef(host.endless("/m.gguf", b"GGUF"))
        await follow_once(downloads.start(ref))
        await downloads.cancel(ref.canonical)

    within(tmp_path, cancel)

    assert files(tmp_path) == []


def test_old_and_useless_parts_are_swept(tmp_path: Path, hub: Hub) -> None:
    """A part is kept for its time if it can be continued; what else a download left goes at once, models never."""
    folder = tmp_path / "models" / "hf"
    folder.mkdir(parents=True)
    now = time.time()
    for name, version, age_s in (("young", "v", 100), ("old", "v", 1000), ("unknown", None, 100)):
        part = PartialFile(folder / name)
        part.begin(version)
        part.append(b"GGUF")
        os.utime(folder / f"{name}.part", (now - age_s, now - age_s))
    (folder / "gone.part.json").write_text("{}")
    (folder / "model.gguf").write_bytes(b"GGUF")
    os.utime(folder / "model.gguf", (0, 0))

    async def sweep(downloads: Downloads) -> None:
        await downloads.sweep()

    within(tmp_path, sweep, keep_s=500)

    assert files(tmp_path) == ["model.gguf", "young.part", "young.part.json"]


def test_a_running_download_is_not_swept(tmp_path: Path, hub: Hub) -> None:
    """A sweep leaves alone what a download is at work on, however old it looks."""
    hub.fail(REPO, FILE, Slow(2 * MIB))

    async def sweep(downloads: Downloads) -> None:
        download = downloads.start(REF)
        await follow_once(download)
        await downloads.sweep()
        assert list(expired_parts(tmp_path / "models", now=time.time() + 10, keep_s=0))
        await download.result()

    within(tmp_path, sweep, keep_s=0)

    assert files(tmp_path) == [FILE]
