"""Models are fetched once, whole or not at all, and used where they are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import CatalogEntry
from rbee.errors import RbeeError
from rbee.hive.models.catalog import Catalog
from rbee.hive.models.downloads import Downloads
from rbee.model_reference import HubRef, UrlRef
from tests.support.downloads import FILE, REF, REPO, failure, fetched, files, watch_and_list, within
from tests.support.faults import Reset
from tests.support.gguf_files import write_gguf
from tests.support.hub import Hub


@pytest.mark.B16
@pytest.mark.B18
def test_a_missing_model_is_fetched_and_cataloged(tmp_path: Path, hub: Hub, content: bytes) -> None:
    """A model is fetched with progress, checked, and its row has reference, path, size, sha256 and time."""
    steps, rows = within(tmp_path, watch_and_list)

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


def test_folders_of_a_repository_are_kept_apart(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one name in two folders are two models here too, and each is found again without the hub."""
    for folder, size in (("Q8_0", 100_000), ("BF16", 200_000)):
        for name in ("big-00001-of-00002.gguf", "big-00002-of-00002.gguf"):
            hub.add(REPO, f"{folder}/{name}", write_gguf(tmp_path / name, size=size).read_bytes())

    entries = [fetched(tmp_path, HubRef(REPO, file=f"{folder}/big-00001-of-00002.gguf")) for folder in ("Q8_0", "BF16")]

    assert [entry.local_path.partition(f"{REPO}/")[2] for entry in entries] == [
        "Q8_0/big-00001-of-00002.gguf",
        "BF16/big-00001-of-00002.gguf",
    ]
    assert entries[0].size_bytes < entries[1].size_bytes
    (tmp_path / "models.db").unlink()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetched(tmp_path, HubRef(REPO, quant="BF16")).local_path == entries[1].local_path


@pytest.mark.parametrize("name", ["../../x.gguf", "a\0b.gguf", "n" * 300 + ".gguf", "a//x.gguf", "C:\\x.gguf"])
def test_a_file_that_cannot_be_stored_is_refused(tmp_path: Path, hub: Hub, name: str) -> None:
    """What a hub names outside of its folder, or as no file can be called, is told and not fetched."""
    hub.add("odd/names", name, b"GGUF")

    error = failure(tmp_path, HubRef("odd/names"))

    assert error.code is ErrorCode.MODEL_NOT_FOUND
    assert "which cannot be stored" in error.message
    assert files(tmp_path) == []


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


def test_progress_of_the_past_can_be_asked_for(tmp_path: Path, hub: Hub) -> None:
    """Who asks for progress after the end gets the end; a model nobody asked for is not found."""

    async def ask_late(downloads: Downloads, _: Catalog) -> list[str]:
        await downloads.ensure(REF)
        stages: list[str] = [step.stage async for step in downloads.get(REF.canonical).watch()]
        with pytest.raises(RbeeError):
            downloads.get("hf:never/asked")
        return stages

    assert within(tmp_path, ask_late) == ["complete"]
