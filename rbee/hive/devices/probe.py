"""Detect the devices of this machine without trusting any driver.

CPU and Metal are read in this process. NVML is called in a child process with a time limit: a driver that hangs or
crashes becomes a fault in the detection. A machine without the driver's library starts no child.
"""

from __future__ import annotations

import ctypes.util
import json
import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rbee.contracts.devices import Backend, Detection, Device
from rbee.hive.child_process import run_child
from rbee.hive.devices import cpu, foreign, metal, nvidia

PROBE_LIMIT_S = 5.0
_UNREADABLE = "the NVIDIA probe gave no valid output"


class ProbeFaultError(Exception):
    """Raised when the child did not give an answer that can be used; the text says why."""


def detect_local() -> Detection:
    """Detect what needs no driver, at once."""
    return Detection(devices=[*metal.detect(), cpu.detect()])


def driver_present() -> bool:
    """Return whether an NVIDIA driver seems to be installed, without loading anything of it."""
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    if any(folder and (Path(folder) / nvidia.LIBRARY).exists() for folder in folders):
        return True
    usual = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/lib/wsl/lib")
    if any((Path(folder) / nvidia.LIBRARY).exists() for folder in usual):
        return True
    # Elsewhere only the linker's cache knows; asking it starts a process, so only where there is a device.
    return Path("/proc/driver/nvidia").exists() and ctypes.util.find_library("nvidia-ml") is not None


async def detect(limit_s: float = PROBE_LIMIT_S, own: Callable[[], Collection[int]] | None = None) -> Detection:
    """Detect everything.

    Args:
        limit_s: how long a GPU driver may take to answer.
        own: returns the process ids of the workers; None where it is not known which memory is foreign.
    """
    local = detect_local()
    if not driver_present():
        return local
    try:
        devices = _devices(await _ask_child(limit_s))
    except ProbeFaultError as error:
        return Detection(devices=local.devices, faults={Backend.CUDA: str(error)})
    if own is None:
        devices = [device.model_copy(update={"held_by": []}) for device in devices]
    else:
        workers = own()  # only now: some may have been started meanwhile
        devices = [foreign.without_own(device, workers) for device in devices]
    return Detection(devices=[*devices, *local.devices])


async def _ask_child(limit_s: float) -> dict[str, Any]:
    try:
        child = await run_child((sys.executable, "-m", "rbee.hive.devices"), env=os.environ, limit_s=limit_s)
    except TimeoutError as error:
        raise ProbeFaultError(f"the NVIDIA driver did not answer within {limit_s:g} s") from error
    if child.code:
        last = child.stderr.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it printed nothing"]
        raise ProbeFaultError(f"the NVIDIA probe ended with {child.ending}: {last[0]}")
    return _read(child.stdout)


def _read(out: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(out.decode("utf-8", "replace").strip().splitlines()[-1])
        if "fault" in answer:
            raise ProbeFaultError(str(answer["fault"]))
    except (IndexError, TypeError, ValueError) as error:
        raise ProbeFaultError(_UNREADABLE) from error
    return dict(answer)


def _devices(answer: dict[str, Any]) -> list[Device]:
    try:
        return [Device.model_validate(item) for item in answer["devices"]]
    except (KeyError, TypeError, ValidationError) as error:
        raise ProbeFaultError(_UNREADABLE) from error
