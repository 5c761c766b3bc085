"""The stand-in driver is one that the real pynvml believes in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.nvml import Gpu, Gpus

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="NVML is looked up as libnvidia-ml.so.1 on Linux only")

ASK = """
import json, pynvml
try:
    pynvml.nvmlInit()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    print(json.dumps([[pynvml.nvmlDeviceGetName(h), pynvml.nvmlDeviceGetMemoryInfo(h).free] for h in handles]))
except pynvml.NVMLError as error:
    print(json.dumps(error.value))
"""


def ask(gpus: Gpus, *, within: float = 20) -> object:
    """Ask in a process of its own: pynvml loads the library once and for all."""
    run = subprocess.run(
        [sys.executable, "-c", ASK],
        env={**os.environ, **gpus.environ()},
        capture_output=True,
        text=True,
        timeout=within,
        check=True,
    )
    return json.loads(run.stdout)


@pytest.fixture(name="gpus")
def _gpus(tmp_path: Path) -> Gpus:
    return Gpus.build(tmp_path)


def test_two_devices_with_settable_memory(gpus: Gpus) -> None:
    """pynvml sees two devices, and memory as it was last set."""
    assert len(ask(gpus)) == 2  # type: ignore[arg-type]

    gpus.set(Gpu(total_mb=8192, used_mb=8000, name="NVIDIA L4"), Gpu())
    assert ask(gpus) == [["NVIDIA L4", 192 * 1024**2], ["NVIDIA GeForce RTX 4090", 24064 * 1024**2]]


@pytest.mark.parametrize(("mode", "code"), [("no-driver", 9), ("mismatch", 18), ("error", 999), ("lost", 15)])
def test_broken_drivers_answer_with_their_code(gpus: Gpus, mode: str, code: int) -> None:
    """Each way to be broken is the error that NVML has for it."""
    gpus.set(mode=mode)  # type: ignore[arg-type]

    assert ask(gpus) == code


def test_a_hanging_driver_hangs(gpus: Gpus) -> None:
    """A driver that hangs gives nothing back, so that a time limit is needed."""
    gpus.set(mode="hang")

    with pytest.raises(subprocess.TimeoutExpired):
        ask(gpus, within=1)


def test_a_crashing_driver_takes_its_process_down(gpus: Gpus) -> None:
    """A driver that crashes kills the process that asked."""
    gpus.set(mode="crash")

    with pytest.raises(subprocess.CalledProcessError):
        ask(gpus)
