"""What a real hive finds on a machine, also where the driver is broken, and how it refuses what is not there."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.hives import KEY, StartHive, alive
from tests.support.nvml import Gpu, Gpus
from tests.support.queens import QueenProcess, machine_with_fake
from tests.support.waiting import eventually, slowness

pytestmark = pytest.mark.process


def detect(*argv: str, env: dict[str, str]) -> str:
    command = [sys.executable, "-m", "rbee.hive", "detect", *argv]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60 * slowness(), check=True).stdout


def test_detect_prints_devices_and_the_registrys_form(tmp_path: Path) -> None:
    """`rbee-hive detect` lists devices with memory, and both forms that the registry keeps."""
    gpus = Gpus.build(tmp_path, Gpu(total_mb=24576, used_mb=576), Gpu(total_mb=8192, used_mb=0))

    listed = json.loads(detect("--json", env=gpus.environ()))
    text = detect(env=gpus.environ())

    assert listed["backends"] == ["cuda", "cpu"]
    assert listed["counts"] == {"cuda": 2, "cpu": 1}
    assert [row["total_bytes"] // 2**20 for row in listed["devices"][:2]] == [24576, 8192]
    assert listed["devices"][0]["free_bytes"] // 2**20 == 24000
    assert 'backends: ["cuda", "cpu"]' in text
    assert 'devices: {"cuda": 2, "cpu": 1}' in text


def test_a_device_tells_what_it_has_taken_or_does_not(tmp_path: Path) -> None:
    """Joules since the driver was loaded, of those devices whose driver counts them; nothing is told of the others."""
    gpus = Gpus.build(tmp_path, Gpu(energy_mj=48_151_623), Gpu())

    listed = json.loads(detect("--json", env=gpus.environ()))

    assert [row.get("energy_j") for row in listed["devices"]] == [48_151.623, None, None]


@pytest.mark.parametrize("mode", ["hang", "hang-memory", "crash", "no-driver", "mismatch", "error", "lost"])
def test_a_broken_driver_is_a_fact(tmp_path: Path, mode: Any) -> None:
    """A driver that hangs, crashes or fails is reported within the limit, and the CPU is there all the same."""
    gpus = Gpus.build(tmp_path, mode=mode)
    began = time.monotonic()

    listed = json.loads(detect("--json", "--timeout", "2", env=gpus.environ()))

    assert time.monotonic() - began < 15 * slowness()
    assert listed["backends"] == ["cpu"]
    assert listed["faults"]["cuda"]


@pytest.mark.B26
@pytest.mark.B38
def test_a_gpu_request_fails_fast_with_what_is_there(start_hive: StartHive, model: str, tmp_path: Path) -> None:
    """Too little VRAM, a device too many and a broken driver each have their error; nothing falls back."""
    gpus = Gpus.build(tmp_path, Gpu(total_mb=8, used_mb=8), Gpu(total_mb=8, used_mb=8))
    hive = start_hive(env=gpus.environ(), detect_timeout_s=5 * slowness())

    def refused(**fields: Any) -> dict[str, Any]:
        return hive.refused("/v1/workers/spawn", {"model": model, **fields})

    full = refused()
    assert full["code"] == "VRAM_EXHAUSTED"
    assert full["details"]["available_mb"] == 0
    assert "--backend cpu" in full["hint"]
    assert refused(backend="cuda", device=5)["details"]["valid"] == [0, 1]
    # In the time that is enough to see a driver hang, one that works may not have answered.
    gpus.set(mode="hang")
    hive = start_hive("other", env=gpus.environ(), detect_timeout_s=1)
    hung = refused()
    assert hung["code"] == "GPU_NOT_AVAILABLE"
    assert "within 1 s" in hung["message"]
    assert hive.spawn(model, backend="cpu")["worker"]["backend"] == "cpu"


def test_a_question_that_hangs_does_not_outlive_its_hive(tmp_path: Path, start_hive: StartHive) -> None:
    """A hive that is killed while a driver hangs leaves no process that still asks it."""
    gpus = Gpus.build(tmp_path, mode="hang")
    hive = start_hive(env=gpus.environ(), detect_timeout_s=100)

    def asking() -> list[int]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("NVML_STUB_FILE") == gpus.environ()["NVML_STUB_FILE"]:
                    found.append(process.pid)
        return [pid for pid in found if pid != hive.process.pid and alive(pid)]

    eventually(asking, within=10, because="the driver is asked")
    hive.kill()

    eventually(lambda: not asking(), within=2, because="nobody asks any more")


def test_the_registry_keeps_what_the_hive_found(tmp_path: Path, start_hive: StartHive) -> None:
    """A queen registers backends and counts of devices, and is told when a driver breaks later."""
    gpus = Gpus.build(tmp_path)
    hive = start_hive(env=gpus.environ(), detect_timeout_s=2 * slowness())
    with machine_with_fake(tmp_path / "queen") as machine:
        machine.configure("queen", local_hive=False)
        queen = QueenProcess(machine)
        node = {"node_name": "attic", "ssh_host": "127.0.0.1", "hive_port": hive.port, "hive_key": KEY}
        queen.post("/v2/registry/beehives/add", node)

        def row() -> dict[str, Any]:
            (found,) = queen.get("/v2/registry/beehives/list")["beehives"]
            return dict(found)

        eventually(lambda: row()["status"] == "reachable", within=10, because="the hive is reached")
        assert row()["backends"] == ["cuda", "cpu"]
        assert row()["devices"] == {"cuda": 2, "cpu": 1}

        gpus.set(Gpu(total_mb=24576, used_mb=24000), Gpu())
        hive.get("/v1/backends/list")
        eventually(lambda: free_mb(queen) == 576, within=5, because="the queen hears how much memory is free now")
        gpus.set(mode="mismatch")
        hive.get("/v1/backends/list")
        eventually(
            lambda: "reboot" in queen.get("/v2/hives/list")["hives"][0]["faults"].get("cuda", ""),
            within=5,
            because="the queen hears of the broken driver",
        )
        queen.running.process.kill()


def free_mb(queen: QueenProcess) -> int:
    """Give what the queen believes the first device to have free."""
    return int(queen.get("/v2/hives/list")["hives"][0]["devices"][0]["free_bytes"]) // 2**20
