"""The receipt of an ending is checked, not believed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from rbee.keeper.queen import pid_file, receipt


def worker(*, gone: bool, memory: int | None = None) -> dict[str, object]:
    return {"worker_id": "w1", "gone": gone, "killed": False, "memory_returned_bytes": memory}


def test_all_gone() -> None:
    """Hives, workers, processes and memory are counted."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    cascade = {
        "hives": [{"node": "localhost", "gone": True, "workers": [worker(gone=True, memory=2_000_000)] * 2}],
        "pids": [ended.pid],
        "seconds": 1.0,
    }

    result = receipt.verify(cascade)

    assert (result.hives, result.workers, result.processes, result.memory_bytes, result.left) == (
        1,
        2,
        1,
        4_000_000,
        [],
    )
    assert receipt.summary_lines(result) == ["Stopped 1 hive and 2 workers; 1 process ended, 4.0 MB of memory freed"]
    assert receipt.detail_lines(result)[-1] == "left       nothing"


def test_what_is_left_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that lives, a hive and a worker that did not end are named with their place."""
    monkeypatch.setattr(receipt, "_GONE_WITHIN_S", 0.05)
    cascade = {
        "hives": [{"node": "gpu1", "gone": False, "error": "no answer", "workers": [worker(gone=False)]}],
        "pids": [os.getpid()],
    }

    result = receipt.verify(cascade)

    assert result.left == [f"process {os.getpid()} on this machine", "hive gpu1: no answer", "worker w1 on gpu1"]
    assert receipt.detail_lines(result)[-1] == "LEFT       worker w1 on gpu1"


def test_a_queen_of_another_machine_names_no_process_of_this_one() -> None:
    """Its process ids are those of its own machine: here they may be anybody's, who is not said to be left."""
    result = receipt.verify({"hives": [], "pids": [os.getpid()], "seconds": 1.0}, os.getppid(), here=False)

    assert result.left == []
    assert not [line for line in receipt.detail_lines(result) if "this machine" in line]


def test_memory_that_did_not_come_back_is_left() -> None:
    """A process that holds memory of a worker that is gone is named, and so is memory that nobody admits to."""
    held = worker(gone=True) | {
        "memory_returned": False,
        "held_by": [{"pid": 77, "name": "python3", "bytes": 3_000_000}],
    }
    unexplained = worker(gone=True) | {"memory_returned": False, "held_by": []}
    cascade = {"hives": [{"node": "gpu1", "gone": True, "workers": [held, unexplained]}], "pids": []}

    result = receipt.verify(cascade)

    assert result.left == [
        "3.0 MB of worker w1 on gpu1, held by python3 (process 77)",
        "memory of worker w1 on gpu1, still held by an unknown process",
    ]


def test_a_pid_file_tells_a_queen_from_a_stranger() -> None:
    """A number that another process has by now is not taken for the queen's."""
    assert not pid_file.is_queen(os.getpid(), "queen-rbee")
    assert not pid_file.is_queen(0, "queen-rbee")
    assert not pid_file.is_queen(2**22 + 1, "queen-rbee")
