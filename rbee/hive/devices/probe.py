"""Detect the devices of this machine without trusting any driver.

CPU and Metal are read in this process. NVML is called in a child process with a time limit: a driver that hangs or
crashes becomes a fault in the detection. A machine without the driver's library starts no child.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import json
import os
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rbee.contracts.devices import Backend, Detection, Device
from rbee.hive.child_process import run_child
from rbee.hive.devices import cpu, metal, nvidia

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


async def detect(limit_s: float = PROBE_LIMIT_S) -> Detection:
    """Detect everything; *limit_s* bounds how long a GPU driver may take to answer."""
    local = detect_local()
    if not driver_present():
        return local
    try:
        devices = _devices(await _ask_child(limit_s))
    except ProbeFaultError as error:
        return Detection(devices=local.devices, faults={Backend.CUDA: str(error)})
    return Detection(devices=[*devices, *local.devices])


async def holders(index: int, limit_s: float = PROBE_LIMIT_S) -> dict[int, int]:
    """Return the processes that hold memory of an NVIDIA device, with their bytes; none where the driver cannot say."""
    if not driver_present():
        return {}
    with contextlib.suppress(ProbeFaultError, ValueError, KeyError, TypeError):
        answer = await _ask_child(limit_s, "holders", str(index))
        return {int(pid): int(size) for pid, size in answer["holders"].items()}
    return {}


async def _ask_child(limit_s: float, *arguments: str) -> dict[str, Any]:
    try:
        child = await run_child(
            (sys.executable, "-m", "rbee.hive.devices", *arguments), env=os.environ, limit_s=limit_s
        )
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
