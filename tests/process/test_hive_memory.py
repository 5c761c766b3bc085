"""Memory of workers: measured at every load, used for the next, and looked for after the end."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from rbee.contracts.devices import Backend
from rbee.hive.memory import LoadedModel, LoadOptions
from rbee.hive.models.catalog_table import CatalogTable
from tests.support.gguf_files import write_gguf
from tests.support.hives import HiveProcess, StartHive, alive
from tests.support.nvml import Gpu, Gpus
from tests.support.waiting import eventually, slowness

pytestmark = pytest.mark.process
MIB = 2**20


def peaks(hive: HiveProcess) -> list[dict[str, Any]]:
    """Give what is stored; nothing before the hive has made its database."""
    try:
        with closing(sqlite3.connect(f"file:{hive.home}/models.db?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute("SELECT * FROM loads")]
    except sqlite3.OperationalError:
        return []


def test_a_load_is_measured(start_hive: StartHive, model: str) -> None:
    """What a worker took at most is kept for its model, context, slots and backend."""
    hive = start_hive()
    hive.serving(hive.spawn(model, slots=2, context_length=512)["worker"]["worker_id"])

    (row,) = eventually(lambda: peaks(hive), within=10, because="the peak is stored")

    assert (row["slots"], row["context_length"], row["backend"], row["cache_type"]) == (2, 512, "cpu", "f16")
    assert (row["model"], row["size_bytes"]) == (model, Path(model.removeprefix("file://")).stat().st_size)
    assert 5 * MIB < row["peak_bytes"] < 500 * MIB


def test_the_next_estimate_uses_what_was_measured(start_hive: StartHive, tmp_path: Path) -> None:
    """A load that the formula would refuse is let through where it was measured to take less before, and only that."""
    path = write_gguf(tmp_path / "greedy.gguf", layers=400, embedding=32768, heads=128, context=131072)
    model = f"file://{path}"
    hive = start_hive()
    assert hive.refused("/v1/workers/spawn", {"model": model})["code"] == "RAM_EXHAUSTED"
    hive.terminate()

    rows = CatalogTable(f"sqlite:///{hive.home / 'models.db'}")
    load = LoadOptions(Backend.CPU, 4, 4096)
    rows.put_peak(LoadedModel(model, path.stat().st_size, load), 50 * MIB, 1_700_000_000)
    rows.close()
    later = start_hive()

    assert later.spawn(model)["worker"]["state"] == "loading"
    assert later.refused("/v1/workers/spawn", {"model": model, "slots": 5})["code"] == "RAM_EXHAUSTED"


def test_a_stopped_workers_memory_is_said_to_be_back(start_hive: StartHive, model: str) -> None:
    """The receipt of a worker that left nothing says that its memory came back."""
    hive = start_hive()
    worker_id = hive.spawn(model)["worker"]["worker_id"]
    hive.serving(worker_id)

    receipt = hive.post(f"/v1/workers/{worker_id}/shutdown")

    assert receipt["memory_returned"] is True
    assert receipt["held_by"] == []
    assert receipt["memory_returned_bytes"] > 5 * MIB


def test_a_process_that_a_worker_left_is_named(start_hive: StartHive, model: str, tmp_path: Path) -> None:
    """A child that outlives its worker is named in the receipt with its id and what it holds."""
    hive = start_hive(env={"STAND_IN_CHILD": str(tmp_path / "child")})
    worker_id = hive.spawn(model)["worker"]["worker_id"]
    hive.serving(worker_id)
    child = int((tmp_path / "child").read_text())
    try:
        receipt = hive.post(f"/v1/workers/{worker_id}/shutdown")

        assert receipt["memory_returned"] is False
        (holder,) = receipt["held_by"]
        assert holder["pid"] == child
        assert holder["name"]
        assert holder["bytes"] > 0
        assert any(line["message"] == "memory was not released" for line in hive.logged())
    finally:
        if alive(child):
            os.kill(child, signal.SIGKILL)


@contextmanager
def gpu_worker(start_hive: StartHive, model: str, gpus: Gpus) -> Iterator[tuple[HiveProcess, str]]:
    """Run a worker that says to have taken 1000 MB of a GPU, which the GPU then lacks."""
    hive = start_hive(env={**gpus.environ(), "STAND_IN_DEVICE_MB": "1000"})
    worker_id = hive.spawn(model, backend="cuda", device=0)["worker"]["worker_id"]
    hive.serving(worker_id)
    gpus.set(Gpu(used_mb=1512), Gpu())
    yield hive, worker_id


def test_a_gpus_memory_is_looked_for_after_the_end(start_hive: StartHive, model: str, tmp_path: Path) -> None:
    """Where the driver gives the memory back the receipt says so, and what was taken is kept for the next load."""
    gpus = Gpus.build(tmp_path)
    with gpu_worker(start_hive, model, gpus) as (hive, worker_id):
        eventually(
            lambda: [row["peak_bytes"] for row in peaks(hive)] == [1000 * MIB], within=10, because="it is stored"
        )
        hive.on_exit(worker_id, lambda: gpus.set(Gpu(), Gpu()))

        receipt = hive.post(f"/v1/workers/{worker_id}/shutdown")

    assert receipt["memory_returned"] is True
    assert receipt["held_by"] == []


def test_who_holds_a_gpus_memory_is_named(start_hive: StartHive, model: str, tmp_path: Path) -> None:
    """Where a GPU's memory does not come back the receipt names the processes that hold it."""
    gpus = Gpus.build(tmp_path)
    with gpu_worker(start_hive, model, gpus) as (hive, worker_id):
        gpus.set(Gpu(used_mb=1512), Gpu(), holders={os.getpid(): 1000})

        receipt = hive.post(f"/v1/workers/{worker_id}/shutdown")

    assert receipt["memory_returned"] is False
    (holder,) = receipt["held_by"]
    assert (holder["pid"], holder["bytes"]) == (os.getpid(), 1000 * MIB)
    assert holder["name"] != "?"


def test_a_broken_driver_does_not_hold_up_an_end(start_hive: StartHive, model: str, tmp_path: Path) -> None:
    """Where the driver hangs the worker is stopped all the same, and the receipt says that nobody could look."""
    gpus = Gpus.build(tmp_path)
    with gpu_worker(start_hive, model, gpus) as (hive, worker_id):
        gpus.set(mode="hang")
        assert hive.get("/v1/backends/list")["faults"]
        began = time.monotonic()

        receipt = hive.post(f"/v1/workers/{worker_id}/shutdown")

    assert receipt["gone"]
    assert receipt["memory_returned"] is None
    assert time.monotonic() - began < 3 * slowness()


def test_workers_on_the_cpu_share_a_budget(start_hive: StartHive, model: str) -> None:
    """A budget is all the memory that queens and lists see; each worker takes what it needs of it, and gives it back.

    A queen is told at once, however little it is.
    """
    hive = start_hive(cpu_memory_gb=0.1)
    limit = int(0.1 * 1024 * MIB)

    def cpu(devices: list[dict[str, Any]]) -> tuple[int, int, int]:
        (device,) = (device for device in devices if device["backend"] == "cpu")
        return device["total_bytes"], device["free_bytes"], device["budget_bytes"]

    with hive.queen() as queen:
        assert cpu(queen.until("hello").model_dump()["detection"]["devices"]) == (limit, limit, limit)

        worker = hive.spawn(model)["worker"]
        left = limit - worker["need_bytes"]
        queen.until("worker_changed")
        assert cpu(queen.until("devices_changed").model_dump()["detection"]["devices"]) == (limit, left, limit)
        assert cpu(hive.get("/v1/backends/list")["devices"]) == (limit, left, limit)
        error = hive.refused("/v1/workers/spawn", {"model": model, "slots": 5})  # a load that was not measured yet
        assert (error["code"], error["details"]["budget_mb"]) == ("RAM_EXHAUSTED", limit // MIB)
        assert error["details"]["available_mb"] == left // MIB

        hive.post(f"/v1/workers/{worker['worker_id']}/shutdown")
        queen.until("worker_gone")
        assert cpu(queen.until("devices_changed").model_dump()["detection"]["devices"]) == (limit, limit, limit)
    assert hive.spawn(model)["worker"]["state"] == "loading"
