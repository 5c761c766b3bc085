"""A hive that stays keeps one idle worker process, and a spawn uses it."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from rbee.hive.workers.process import MARK, PROGRAM, worker_program
from rbee.lifeline import ORDERED
from tests.support.gguf_files import write_gguf
from tests.support.hives import HiveProcess, StartHive, alive
from tests.support.machine import Machine
from tests.support.models import smollm2_path
from tests.support.waiting import eventually

pytestmark = pytest.mark.process


def start(start_hive: StartHive, *, engine: str = "fake", **more: Any) -> HiveProcess:
    """Start a hive with real worker programs and a spare."""
    env = {"RBEE_WORKER_ENGINE": engine} if engine == "fake" else {}
    return start_hive(env=env, **{"worker_binary": worker_program(None), "spare_worker": True, **more})


def spares(hive: HiveProcess) -> list[psutil.Process]:
    """List the children of the hive that wait for orders, also those that have them."""
    found = []
    for child in psutil.Process(hive.process.pid).children():
        try:
            if child.cmdline()[-1:] == [ORDERED] and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
        except psutil.Error:
            continue
    return found


def idle_spare(hive: HiveProcess, *, other_than: int = 0) -> psutil.Process:
    """Wait for a spare that has imported everything: it then has one thread, so that it can give up rights."""

    def found() -> psutil.Process | None:
        listed = {row["pid"] for row in hive.workers()}
        for spare in spares(hive):
            imported = "libllama" in Path(f"/proc/{spare.pid}/maps").read_text(encoding="ascii", errors="replace")
            if spare.pid not in listed and spare.pid != other_than and imported and spare.num_threads() == 1:
                return spare
        return None

    spare = eventually(found, within=40, because="the hive has a spare worker")
    assert spare is not None
    return spare


def test_a_spawn_uses_the_spare_and_another_follows(start_hive: StartHive, model: str) -> None:
    """The spare becomes the worker, with its own log; another is started once the worker serves."""
    hive = start(start_hive)
    spare = idle_spare(hive)
    assert hive.workers() == []
    assert spare.environ()[MARK] == str(hive.home.resolve())

    link = hive.spawn(model)

    worker = link["worker"]
    assert worker["pid"] == spare.pid
    assert hive.serving(worker["worker_id"])["state"] == "idle"
    assert spare.nice() == psutil.Process(hive.process.pid).nice()
    assert "serving" in (hive.home / "logs" / f"{worker['worker_id']}.log").read_text()
    following = idle_spare(hive, other_than=spare.pid)
    assert [row["pid"] for row in hive.workers()] == [spare.pid]
    receipt = hive.post(f"/v1/workers/{worker['worker_id']}/shutdown")
    assert receipt["memory_returned"] is True
    assert alive(following.pid)


@pytest.mark.engine
def test_the_real_engine_loads_in_a_spare(start_hive: StartHive) -> None:
    """A worker that was a spare loads a real model."""
    hive = start(start_hive, engine="llama")
    spare = idle_spare(hive)

    worker = hive.spawn(f"file://{smollm2_path()}")["worker"]

    assert worker["pid"] == spare.pid
    assert hive.serving(worker["worker_id"])["backend"] == "cpu"


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_spare_is_gone_with_its_hive(start_hive: StartHive, end: signal.Signals) -> None:
    """However the hive ends, no spare is left."""
    hive = start(start_hive)
    spare = idle_spare(hive)

    hive.process.send_signal(end)

    eventually(lambda: not alive(spare.pid), within=2, because="the spare ends with the hive")


def test_a_dead_spare_is_replaced_and_missed_by_nobody(start_hive: StartHive, model: str) -> None:
    """A spawn beside a spare that was killed, or hangs, starts a worker in the ordinary way."""
    hive = start(start_hive)
    spare = idle_spare(hive)
    os.kill(spare.pid, signal.SIGSTOP)

    worker = hive.spawn(model)["worker"]

    assert worker["pid"] != spare.pid
    assert hive.serving(worker["worker_id"])["state"] == "idle"
    eventually(lambda: not alive(spare.pid), within=5, because="a spare that hangs is killed")
    following = idle_spare(hive)
    os.kill(following.pid, signal.SIGKILL)
    assert hive.serving(hive.spawn(model)["worker"]["worker_id"])["state"] == "idle"


def test_a_program_that_dies_is_not_started_in_a_loop(start_hive: StartHive, tmp_path: Path) -> None:
    """A spare that ends at once is tried again only after a delay that grows; what it says is among the logs."""
    program = tmp_path / PROGRAM
    program.write_text(f"#!/bin/sh\necho x >> {tmp_path / 'starts'}\necho spoilt\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    hive = start(start_hive, worker_binary=program)

    def warned() -> list[float]:
        return [line["next_try_s"] for line in hive.logged() if line["message"] == "no spare worker"]

    eventually(lambda: len(warned()) >= 2, within=20, because="a second spare has died as well")
    assert warned()[:2] == [5.0, 10.0]
    assert len((tmp_path / "starts").read_text().splitlines()) == len(warned())
    assert '{"source":"worker-spare","line":"spoilt"}' in hive.http.get("/v1/logs").text


def test_a_hive_whose_settings_say_so_has_no_spare(start_hive: StartHive, model: str) -> None:
    """Without `spare_worker` there is never a spare."""
    hive = start(start_hive, spare_worker=False)

    hive.serving(hive.spawn(model)["worker"]["worker_id"])

    assert spares(hive) == []


def test_only_the_hive_of_a_queen_that_stays_has_a_spare(tmp_path: Path) -> None:
    """A cold `infer` never has one, however long it answers; `daemon start` with the same settings has."""
    machine = Machine(tmp_path / "machine")
    machine.configure("hive", spare_worker=True)
    machine.configure("worker", engine="fake")
    machine.fake(tokens_per_s=20)
    model = f"file://{write_gguf(machine.root / 'tiny.gguf')}"

    def waiting() -> list[int]:
        found = []
        for process in machine.processes(PROGRAM):
            with contextlib.suppress(psutil.NoSuchProcess):  # it may end between two looks
                if process.cmdline()[-1:] == [ORDERED]:
                    found.append(process.pid)
        return found

    try:
        asked = machine.start("rbee-keeper", "infer", "--model", model, "--prompt", "hello", "--max-tokens", "160")
        # A hive that may have a spare starts it 2 s after its own start; the answer takes 8 s.
        eventually(
            lambda: waiting() or asked.process.poll() is not None, within=60, because="the answer or a spare is there"
        )
        assert waiting() == []
        assert asked.wait(1).code == 0

        assert machine.run("rbee-keeper", "daemon", "start").code == 0
        eventually(lambda: bool(waiting()), within=20, because="the hive that stays has a spare worker")
    finally:
        machine.close()
