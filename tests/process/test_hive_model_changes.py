"""What a real hive does when the file of a model changes under its worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.gguf_files import write_gguf
from tests.support.hives import StartHive
from tests.support.waiting import eventually

pytestmark = pytest.mark.process


@pytest.mark.parametrize("overwritten", [True, False])
def test_a_worker_whose_model_changed_is_replaced(start_hive: StartHive, tmp_path: Path, overwritten: bool) -> None:
    """A model that is written over, or exchanged, under its worker is loaded anew, and that is no crash."""
    path = write_gguf(tmp_path / "m.gguf", name="old")
    after = write_gguf(tmp_path / "new.gguf", name="new")
    hive = start_hive()
    before = hive.spawn(f"file://{path}")["worker"]
    hive.serving(before["worker_id"])
    assert path.stat().st_size == after.stat().st_size

    with hive.queen() as queen:
        if overwritten:
            path.write_bytes(after.read_bytes())
        else:
            after.rename(path)
        gone = queen.until("worker_gone")

    assert gone.worker_id == before["worker_id"]
    assert (gone.crashed, gone.error) == (False, None)
    assert ("changed while it was in use" if overwritten else "another file took the place") in gone.reason
    (row,) = eventually(hive.workers, within=10, because="another worker takes its place")
    assert row["worker_id"] != before["worker_id"]
    hive.serving(row["worker_id"])
    eventually(lambda: hive.get("/v1/models/show", model=f"file://{path}")["name"] == "new", within=5, because="it is")
    assert hive.get("/v1/workers/list").get("quarantined", []) == []


def test_a_start_for_requests_keeps_the_options_of_the_worker_that_is_replaced(
    start_hive: StartHive, tmp_path: Path
) -> None:
    """Where a request is sooner than the replacement, its worker is that, with all that the first was started with."""
    path = write_gguf(tmp_path / "m.gguf", name="old")
    hive = start_hive()
    asked = {"slots": 2, "context_length": 128, "cache_type": "bf16", "speculate": 3, "threads": 1, "prompt_batch": 16}
    declared = {"served": "mine", "revision": "1"}
    before = hive.spawn(f"file://{path}", **asked, keep=77, **declared)["worker"]
    hive.serving(before["worker_id"])

    with hive.queen() as queen:
        path.write_bytes(write_gguf(tmp_path / "new.gguf", name="new").read_bytes())
        queen.until("worker_gone")
    after = hive.spawn(f"file://{path}", join=True, **declared)["worker"]

    kept = ("options", "keep", "served", "revision")
    assert before["options"] == asked
    assert [after[name] for name in kept] == [before[name] for name in kept] == [asked, 77, "mine", "1"]
    hive.serving(after["worker_id"])
    assert [row["worker_id"] for row in hive.workers()] == [after["worker_id"]]


def test_a_model_that_is_only_renamed_or_removed_stays_loaded(start_hive: StartHive, tmp_path: Path) -> None:
    """A worker keeps a file that lost its name: nothing is wrong with its weights."""
    path = write_gguf(tmp_path / "m.gguf")
    hive = start_hive()
    worker = hive.spawn(f"file://{path}")["worker"]
    hive.serving(worker["worker_id"])
    other = write_gguf(tmp_path / "other.gguf")
    second = hive.spawn(f"file://{other}")["worker"]
    hive.serving(second["worker_id"])

    path.unlink()
    other.chmod(0o400)
    write_gguf(other.with_name("third.gguf")).rename(other)

    eventually(lambda: hive.workers()[-1]["worker_id"] != second["worker_id"], within=10, because="it was exchanged")
    assert hive.workers()[0]["worker_id"] == worker["worker_id"]
