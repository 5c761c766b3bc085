"""A broken download goes on where it stopped, a refusal is told with its cause, and nothing wrong is kept."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import shutil
from pathlib import Path

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.hive.models import partial_file
from rbee.hive.models.catalog import Catalog
from rbee.hive.models.disk_space import DiskSpace
from rbee.hive.models.downloads import Downloads
from rbee.hive.models.partial_file import PartialFile
from rbee.hive.models.remote import RemoteFile
from rbee.hive.models.transfer import Transfer, new_hive_client
from rbee.model_reference import UrlRef
from tests.support.downloads import FILE, REF, REPO, failure, fetched, files, watch_and_list, within
from tests.support.faults import Cut, Earlier, Expired, Later, OnlyTheRest, Reset, Stall, Status, Truncated, WrongBytes
from tests.support.hub import Hub


@pytest.mark.B17
@pytest.mark.parametrize("fault", [Reset(0.4), Cut(0.4)])
def test_a_broken_download_goes_on_where_it_stopped(
    tmp_path: Path, hub: Hub, content: bytes, fault: Reset | Cut
) -> None:
    """Each retry asks for the rest only, and is shown with its number and reason."""
    hub.fail(REPO, FILE, fault, times=2)

    steps, _ = within(tmp_path, watch_and_list)

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


@pytest.mark.parametrize("fault", [Earlier(), Earlier(by=5000), Later(), OnlyTheRest()])
def test_an_answer_that_does_not_fit_the_part_is_no_failure(
    tmp_path: Path, hub: Hub, content: bytes, fault: Earlier | Later | OnlyTheRest
) -> None:
    """Where a server continues earlier the part is cut back; where it gives something else the file is begun anew."""
    hub.fail(REPO, FILE, Reset(0.4))
    hub.fail(REPO, FILE, fault, times=None)

    steps, _ = within(tmp_path, watch_and_list)

    assert (tmp_path / "models" / "hf" / REPO / FILE).read_bytes() == content
    assert len([step for step in steps if step.stage == "retrying"]) == (1 if isinstance(fault, Earlier) else 2)
    assert len(hub.downloads(REPO, FILE)) == (2 if isinstance(fault, Earlier) else 3)


@pytest.mark.parametrize("status", [400, 403])
def test_an_expired_address_is_asked_for_again(tmp_path: Path, hub: Hub, content: bytes, status: int) -> None:
    """A refusal of the host that the hub led to is no refusal of the model: the hub is asked for a fresh address."""
    hub.fail(REPO, FILE, Reset(0.4))
    hub.fail(REPO, FILE, Expired(status), times=2)

    steps, (row,) = within(tmp_path, watch_and_list)

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


def test_a_hub_that_does_not_answer_is_retried(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that cannot be reached is DOWNLOAD_FAILED after the retries."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")

    error = failure(tmp_path)

    assert error.code is ErrorCode.DOWNLOAD_FAILED
    assert error.details["retries"] == 6


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


@pytest.mark.parametrize("told", [True, False])
def test_a_part_of_a_copy_is_continued_by_who_tells_its_checksum(
    tmp_path: Path, hub: Hub, content: bytes, *, told: bool
) -> None:
    """A part that is named by the checksum of the whole, as a copy's is, is begun anew where the source tells none."""
    sha256 = hashlib.sha256(content).hexdigest()
    part = PartialFile(tmp_path / "m.gguf")
    part.begin(sha256)
    part.append(content[:1000])
    file = RemoteFile(hub.plain_url(REPO, FILE), "m.gguf", sha256=sha256 if told else None)
    attempt = Transfer(file, part, DiskSpace(), 2**40, lambda _have, _size: None)

    async def work() -> None:
        async with new_hive_client(hub.url, 5) as client:
            await attempt.run(client)

    asyncio.run(work())

    assert part.sha256() == sha256
    assert hub.ranges(REPO, FILE) == ["bytes=1000-" if told else None]
