"""Workers without the hive's secrets: what one that was taken over could read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rbee import landlock
from tests.support.gguf_files import write_gguf
from tests.support.machine import Machine
from tests.support.queens import QueenProcess, machine_with_fake, named
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not landlock.abi_version(), reason="this kernel has no Landlock"),
]


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path) as machine:
        yield machine


def answer(queen: QueenProcess) -> str:
    events = queen.task(max_tokens=1)
    return "".join(data["token"] for data in named(events, "message") if "token" in data)


@pytest.mark.parametrize("spare", [False, True], ids=["started for it", "spare"])
def test_a_worker_cannot_read_the_hives_secrets(machine: Machine, spare: bool) -> None:
    """The key of the hive, which any process of its account could read, is closed to its workers, in every thread."""
    machine.fake(reads=str(machine.home / "secrets" / "api-key"))
    machine.configure("hive", spare_worker=spare)
    queen = QueenProcess(machine)
    if spare:
        eventually(lambda: machine.processes("llm-worker-rbee"), within=30, because="there is a spare")
        eventually(lambda: queen.hive().children(), within=5, because="it is the hive's")

    assert answer(queen) == "PermissionError"

    pid = queen.worker()["pid"]
    threads = [(task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    assert len(threads) > 1
    assert all("NoNewPrivs:\t1" in status for status in threads)
    core = next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file" in line)
    assert core.split()[4:6] == ["0", "0"]


def test_a_worker_reads_its_own_model(machine: Machine) -> None:
    """What it is for stays open."""
    machine.fake(reads=str(write_gguf(machine.root / "model.gguf")))
    queen = QueenProcess(machine)

    assert answer(queen) == "readable"
