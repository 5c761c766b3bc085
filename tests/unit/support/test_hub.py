"""The stand-in hub is one that the real huggingface_hub believes in."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import HfApi, errors, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from rbee.hive.models import hub as listing
from tests.support.hub import Cut, Hub, Reset, Slow, Status, Truncated, WrongBytes

REPO = "bees/tiny-GGUF"
FILE = "tiny-Q4_K_M.gguf"
CONTENT = bytes(range(256)) * 8192


@pytest.fixture(name="hub")
def _hub() -> Iterator[Hub]:
    with Hub() as hub:
        hub.add(REPO, FILE, CONTENT)
        hub.add(REPO, "README.md", b"# tiny\n", lfs=False)
        hub.add(REPO, "split/tiny-00001-of-00002.gguf", b"GGUF")
        yield hub


@pytest.fixture(name="api")
def _api(hub: Hub) -> HfApi:
    return HfApi(endpoint=hub.url, token=False)


@pytest.fixture(autouse=True)
def _own_client() -> None:
    """The client of a hive's listings, which a test before this may have left, reaches no hub but that of its hive."""
    set_client_factory(default_client_factory)
    listing._guarded.clear()


@pytest.fixture(autouse=True)
def _no_xet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def fetch(api: HfApi, folder: Path) -> bytes:
    return Path(api.hf_hub_download(REPO, FILE, local_dir=folder)).read_bytes()


def raw_get(hub: Hub, *, start: int = 0) -> tuple[int, bytes]:
    """Ask for the bytes without any library that repairs what goes wrong."""
    connection = http.client.HTTPConnection(urlsplit(hub.url).netloc, timeout=5)
    try:
        headers = {"Range": f"bytes={start}-"} if start else {}
        connection.request("GET", urlsplit(hub.plain_url(REPO, FILE)).path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_info_carries_sizes_and_sha256(api: HfApi) -> None:
    """Model info with file metadata gives size and sha256 of large files, and only the size of small ones."""
    info = api.model_info(REPO, files_metadata=True)

    files = {sibling.rfilename: sibling for sibling in info.siblings or []}
    large, small = files[FILE], files["README.md"]
    assert large.size == len(CONTENT)
    assert large.lfs is not None
    assert large.lfs.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert small.lfs is None


def test_tree_lists_folders_and_files(api: HfApi) -> None:
    """The tree listing is flat by default and goes down when asked."""
    flat = {entry.path for entry in api.list_repo_tree(REPO)}
    deep = {entry.path for entry in api.list_repo_tree(REPO, recursive=True)}

    assert flat == {FILE, "README.md", "split"}
    assert deep == flat | {"split/tiny-00001-of-00002.gguf"}


def test_download_follows_the_redirect(api: HfApi, hub: Hub, tmp_path: Path) -> None:
    """A whole download goes through the redirect to the file server and takes one request for the bytes."""
    assert fetch(api, tmp_path) == CONTENT
    assert hub.ranges(REPO, FILE) == [None]


def test_a_cut_is_resumed_by_range(api: HfApi, hub: Hub, tmp_path: Path) -> None:
    """After a cut the client asks for the rest only, and the file comes out whole."""
    # huggingface_hub writes pieces of 10 MiB: less than that and it starts over.
    content = CONTENT * 6
    hub.add(REPO, FILE, content)
    hub.fail(REPO, FILE, Cut(at=0.9))

    assert fetch(api, tmp_path) == content
    first, second = hub.downloads(REPO, FILE)
    assert first.bytes_sent == int(len(content) * 0.9)
    assert second.status == 206
    assert second.headers["range"] == f"bytes={10 * 1024 * 1024}-"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Status(403, "GatedRepo"), errors.GatedRepoError),
        (Status(404, "EntryNotFound"), errors.RemoteEntryNotFoundError),
        (Status(401, "RepoNotFound"), errors.RepositoryNotFoundError),
    ],
    ids=["403", "404", "401"],
)
def test_status_faults_are_the_hubs_own(
    api: HfApi, hub: Hub, tmp_path: Path, fault: Status, expected: type[Exception]
) -> None:
    """A status fault is recognised by huggingface_hub as the error that it stands for."""
    hub.fail(REPO, FILE, fault, times=None)

    with pytest.raises(expected):
        fetch(api, tmp_path)


def test_protected_repositories_want_their_token(hub: Hub, tmp_path: Path) -> None:
    """A gated repository refuses strangers as gated, a private one hides, and both open to the token."""
    hub.protect(REPO, token="hf_secret", gated=True)
    with pytest.raises(errors.GatedRepoError):
        HfApi(endpoint=hub.url, token="hf_wrong").model_info(REPO)

    hub.protect(REPO, token="hf_secret")
    with pytest.raises(errors.RepositoryNotFoundError):
        HfApi(endpoint=hub.url, token="hf_wrong").model_info(REPO)

    assert fetch(HfApi(endpoint=hub.url, token="hf_secret"), tmp_path) == CONTENT
    assert "authorization" not in hub.downloads(REPO, FILE)[0].headers


def test_a_reset_breaks_the_connection(hub: Hub) -> None:
    """A reset reaches the client as a broken connection, in the middle of the body."""
    hub.fail(REPO, FILE, Reset(at=0.4))

    with pytest.raises((ConnectionResetError, http.client.IncompleteRead)):
        raw_get(hub)


def test_a_cut_ends_the_body_early(hub: Hub) -> None:
    """A cut connection leaves the client with less than the length that was promised."""
    hub.fail(REPO, FILE, Cut(at=0.5))

    with pytest.raises(http.client.IncompleteRead) as raised:
        raw_get(hub)
    assert len(raised.value.partial) == len(CONTENT) // 2


def test_wrong_and_truncated_bytes_look_fine_on_the_wire(hub: Hub) -> None:
    """Wrong bytes and a truncated file arrive as complete answers: only size and sha256 can tell."""
    hub.fail(REPO, FILE, WrongBytes())
    hub.fail(REPO, FILE, Truncated(at=0.5))

    wrong, truncated, healthy = (raw_get(hub)[1] for _ in range(3))

    assert len(wrong) == len(CONTENT)
    assert wrong != CONTENT
    assert truncated == CONTENT[: len(CONTENT) // 2]
    assert healthy == CONTENT


def test_ranges_are_honoured(hub: Hub) -> None:
    """A range gets exactly the rest of the file, and one past the end gets 416."""
    assert raw_get(hub, start=100) == (206, CONTENT[100:])
    assert raw_get(hub, start=len(CONTENT))[0] == 416


def test_a_retry_after_is_sent(hub: Hub) -> None:
    """A rate limit strikes as often as set, then the file is there."""
    hub.fail(REPO, FILE, Status(429, retry_after_s=1), times=2)

    assert [raw_get(hub)[0] for _ in range(3)] == [429, 429, 200]


def test_a_slow_file_arrives_whole(hub: Hub) -> None:
    """Slow sends every byte."""
    hub.fail(REPO, FILE, Slow(bytes_per_s=20 * len(CONTENT)))

    assert raw_get(hub) == (200, CONTENT)
