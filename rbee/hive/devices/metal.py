"""Detect Metal by the platform: its memory is the machine's, because Apple's chips share it."""

from __future__ import annotations

import platform

import psutil

from rbee.contracts.devices import Backend, Device

# Metal lets a process use about three quarters of the memory (recommendedMaxWorkingSetSize).
_USABLE = 0.75


def detect() -> list[Device]:
    """Return the one Metal device of a Mac with an Apple chip; nothing elsewhere."""
    if platform.system() != "Darwin" or platform.machine() != "arm64":
        return []
    memory = psutil.virtual_memory()
    total = int(memory.total * _USABLE)
    return [
        Device(
            backend=Backend.METAL,
            index=0,
            name="Apple GPU",
            total_bytes=total,
            free_bytes=min(int(memory.available), total),
        )
    ]
