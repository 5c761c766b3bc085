"""A device that is yielded to another program: its workers end, none is started there, and the queens know."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.hives import HiveProcess, StartHive
from tests.support.nvml import Gpu, Gpus
from tests.support.waiting import eventually

pytestmark = [pytest.mark.process, pytest.mark.B90]
MIB = 2**20


@pytest.fixture(name="gpus")
def _gpus(tmp_path: Path) -> Gpus:
    return Gpus.build(tmp_path)


def serving_on(hive: HiveProcess, model: str, device: int) -> str:
    """Start a worker on a GPU and wait until it serves; give its id."""
    worker_id: str = hive.spawn(model, backend="cuda", device=device)["worker"]["worker_id"]
    hive.serving(worker_id)
    return worker_id


def yielded(hive: HiveProcess) -> list[tuple[str, int]]:
    """Give what a hive says in its first message that is yielded."""
    with hive.queen() as queen:
        hello: Any = queen.until("hello")
    return [(each.backend.value, each.device) for each in hello.yielded]


def test_a_yielded_device_is_emptied_and_stays_empty(start_hive: StartHive, model: str, gpus: Gpus) -> None:
    """The workers of the device end, those of the other stay, and nothing is started there until it is resumed."""
    hive = start_hive(env=gpus.environ())
    leaving, staying = serving_on(hive, model, 0), serving_on(hive, model, 1)

    (device,) = hive.post("/v1/devices/yield", {"backend": "cuda", "device": 0, "for_s": 7200})["devices"]

    assert [receipt["worker_id"] for receipt in device["workers"]] == [leaving]
    assert device["workers"][0]["gone"]
    assert not device["workers"][0]["killed"]
    assert (device["device"]["backend"], device["device"]["index"]) == ("cuda", 0)
    assert 7100 < device["until_unix"] - time.time() <= 7200
    assert [row["worker_id"] for row in hive.workers()] == [staying]
    refused = hive.refused("/v1/workers/spawn", {"model": model, "backend": "cuda", "device": 0})
    assert refused["code"] == "DEVICE_YIELDED"
    assert "another program until" in refused["message"]
    assert hive.spawn(model, backend="cuda")["worker"]["device"] == 1
    assert hive.post("/v1/devices/resume", {"device": 0})["devices"][0]["device"] == 0
    serving_on(hive, model, 0)


def test_queens_hear_of_a_yield_before_a_worker_stops(start_hive: StartHive, model: str, gpus: Gpus) -> None:
    """What is yielded is told before any worker of it is told to stop, and again when it is resumed."""
    hive = start_hive(env=gpus.environ())
    worker_id = serving_on(hive, model, 0)

    with hive.queen() as queen:
        assert queen.until("hello").yielded == []
        hive.post("/v1/devices/yield", {"backend": "cuda", "device": 0})
        told: list[Any] = []
        while not told or told[-1].kind != "worker_gone":
            told.append(queen.next())
        kinds = [message.kind for message in told if message.kind not in ("devices_changed", "models_changed")]
        assert kinds[0] == "yielded_changed"
        assert kinds[1:3] == ["worker_changed", "worker_gone"]
        assert told[-1].worker_id == worker_id
        assert not told[-1].crashed
        assert "yielded" in told[-1].reason
        hive.post("/v1/devices/resume", {})
        assert queen.until("yielded_changed").yielded == []


def test_a_worker_that_is_being_started_is_stopped_too(start_hive: StartHive, model: str, gpus: Gpus) -> None:
    """A yield also ends a worker that still loads its model, and every device is meant where none is named."""
    hive = start_hive(env={**gpus.environ(), "STAND_IN_LOAD_S": "600"})
    hive.spawn(model, backend="cuda", device=1)
    hive.spawn(model, backend="cpu")

    devices = hive.post("/v1/devices/yield", {"drain_s": 5})["devices"]

    named = [(one["device"]["backend"], one["device"]["index"], len(one["workers"])) for one in devices]
    assert named == [("cuda", 0, 0), ("cuda", 1, 1), ("cpu", 0, 1)]
    assert [one["until_unix"] for one in devices] == [None] * 3
    assert hive.workers() == []
    assert hive.refused("/v1/workers/spawn", {"model": model, "backend": "cpu"})["code"] == "DEVICE_YIELDED"


def test_a_yield_ends_with_its_time(start_hive: StartHive, model: str, gpus: Gpus) -> None:
    """After the time that was asked for the device is used again, without a command, and the queens are told."""
    hive = start_hive(env=gpus.environ())

    with hive.queen() as queen:
        hive.post("/v1/devices/yield", {"backend": "cuda", "device": 0, "for_s": 2})
        assert [each.device for each in queen.until("yielded_changed").yielded] == [0]
        assert queen.until("yielded_changed").yielded == []

    serving_on(hive, model, 0)
    assert json.loads((hive.home / "yielded.json").read_text()) == {"yielded": []}


def test_a_yield_survives_a_restart_of_its_hive(start_hive: StartHive, model: str, gpus: Gpus) -> None:
    """A hive that starts again, also after a kill, keeps what was yielded, with its end."""
    hive = start_hive(env=gpus.environ())
    (before,) = hive.post("/v1/devices/yield", {"backend": "cuda", "device": 1, "for_s": 7200})["devices"]
    hive.kill()

    again = start_hive(env=gpus.environ())

    assert yielded(again) == [("cuda", 1)]
    refused = again.refused("/v1/workers/spawn", {"model": model, "backend": "cuda", "device": 1})
    assert refused["details"]["until_unix"] == before["until_unix"]
    again.post("/v1/devices/resume", {"backend": "cuda", "device": 1})
    again.terminate()
    assert yielded(start_hive(env=gpus.environ())) == []


def test_a_device_that_is_not_there_is_not_yielded(start_hive: StartHive, gpus: Gpus) -> None:
    """A device that does not exist is refused with those that do, and one that is not yielded is not resumed."""
    hive = start_hive(env=gpus.environ())

    assert hive.refused("/v1/devices/yield", {"device": 7})["details"]["valid"] == [0, 1]
    assert hive.refused("/v1/devices/yield", {"backend": "metal"})["code"] == "BACKEND_UNAVAILABLE"
    assert hive.refused("/v1/devices/yield", {"for_s": 0})["code"] == "INVALID_REQUEST"
    assert hive.post("/v1/devices/resume", {})["devices"] == []
    assert yielded(hive) == []


def test_a_file_that_cannot_be_read_keeps_the_hive_from_starting(start_hive: StartHive, tmp_path: Path) -> None:
    """A hive whose file of yielded devices is broken says so and names the file; it does not take the devices."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "yielded.json").write_text("{")

    hive = start_hive(fails=True)

    assert hive.announced is not None
    assert hive.announced["error"]["code"] == "STATE_CORRUPT"
    assert "yielded.json" in hive.announced["error"]["message"]


def test_memory_of_other_programs_is_noticed(start_hive: StartHive, model: str, gpus: Gpus) -> None:
    """A program that takes memory of a GPU is told to the queens, and named where a model does not fit for it."""
    hive = start_hive(env=gpus.environ())
    serving_on(hive, model, 0)
    (worker,) = hive.workers()

    with hive.queen() as queen:
        queen.until("hello")
        full = Gpu(total_mb=8, used_mb=8)
        gpus.set(full, full, holders={worker["pid"]: 2}, graphics={os.getpid(): 6})
        hive.get("/v1/backends/list")
        # What other programs of this machine do to its memory is told too.
        while not (found := queen.until("devices_changed").detection.devices[0]).foreign_bytes:
            pass

    assert found.foreign_bytes == 6 * MIB
    assert [holder.pid for holder in found.held_by] == [os.getpid()]
    refused = hive.refused("/v1/workers/spawn", {"model": model, "backend": "cuda", "device": 1})
    assert refused["code"] == "VRAM_EXHAUSTED"
    assert "other programs hold 6 MB" in refused["message"]
    assert f"(process {os.getpid()})" in refused["message"]
    eventually(
        lambda: any(line["message"] == "memory held by other programs" for line in hive.logged()),
        within=5,
        because="the log says so",
    )


def test_a_yield_names_who_holds_the_memory(start_hive: StartHive, model: str, gpus: Gpus) -> None:
    """The receipt says what of the device's memory is free afterwards, and which programs hold some of it."""
    hive = start_hive(env=gpus.environ())
    gpus.set(Gpu(used_mb=6000), Gpu(), graphics={os.getpid(): 5800})

    (device,) = hive.post("/v1/devices/yield", {"backend": "cuda", "device": 0})["devices"]

    assert device["workers"] == []
    assert device["device"]["foreign_bytes"] == 5800 * MIB
    assert device["device"]["held_by"][0]["pid"] == os.getpid()
    assert device["device"]["free_bytes"] == (24576 - 6000) * MIB
