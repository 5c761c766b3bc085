"""Detect the CPU: it is always there, and its memory is the machine's, or what of it this process may use."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil

from rbee import resource_limits
from rbee.contracts.devices import Backend, Device


def detect() -> Device:
    """Read how much memory there is and how much of it a new process could have."""
    memory = psutil.virtual_memory()
    total, free = int(memory.total), int(memory.available)
    limit = resource_limits.memory_limit()
    if limit is not None:
        total, free = min(total, limit.total), min(free, limit.free)
    return Device(backend=Backend.CPU, index=0, name=_name(), total_bytes=total, free_bytes=free)


def _name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
