"""Tell the processes that hold memory of a GPU and are no workers of this hive from those that are."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Final

import psutil

from rbee.contracts.devices import Device, MemoryHolder

MOST_NAMED: Final = 5


def without_own(device: Device, own: Collection[int]) -> Device:
    """Return *device* with what others hold of its memory, the largest by name.

    Args:
        device: with every process that the driver lists, without names.
        own: process ids of the workers; each leads a session, so that its children are known as well.
    """
    foreign = [holder for holder in device.held_by if not _belongs(holder.pid, own)]
    foreign.sort(key=lambda holder: (-holder.bytes, holder.pid))
    return device.model_copy(
        update={
            "foreign_bytes": min(sum(holder.bytes for holder in foreign), device.total_bytes),
            "held_by": [named(holder.pid, holder.bytes) for holder in foreign[:MOST_NAMED]],
        }
    )


def named(pid: int, size: int) -> MemoryHolder:
    """Return a process that holds *size* bytes, with its name; `?` where that cannot be read."""
    try:
        name = str(psutil.Process(pid).name())
    except psutil.Error:
        name = "?"
    return MemoryHolder(pid=pid, name=name, bytes=size)


def _belongs(pid: int, own: Collection[int]) -> bool:
    try:
        return pid in own or os.getsid(pid) in own
    except OSError:  # it has ended, or is one of another namespace
        return False
