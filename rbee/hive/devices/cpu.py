"""Detect the CPU: it is always there, and its memory is the machine's."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil

from rbee.contracts.devices import Backend, Device


def detect() -> Device:
    """Read how much memory there is and how much of it a new process could have."""
    memory = psutil.virtual_memory()
    return Device(
        backend=Backend.CPU, index=0, name=_name(), total_bytes=int(memory.total), free_bytes=int(memory.available)
    )


def _name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
