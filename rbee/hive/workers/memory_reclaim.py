"""Check after a worker's end whether its memory was released, and by whom it is held where it was not.

A process that is gone holds nothing, but it may have left children, and the memory of a GPU is released by its
driver, which may fail to. So both are checked.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import psutil

from rbee.contracts.devices import Backend, Detection, Device, MemoryHolder
from rbee.hive.devices.foreign import named
from rbee.hive.devices.monitor import DeviceMonitor

log = logging.getLogger(__name__)
# A driver releases memory a moment after a process has ended, and may keep a part of it.
PATIENCE_S: Final = 2.0
LOOK_AGAIN_S: Final = 0.2
RETURNED_SHARE: Final = 0.8
KEY_VARIABLE: Final = "RBEE_WORKER_API_KEY"


@dataclass(frozen=True, slots=True)
class StoppedWorker:
    """A worker that is to end: how to find what it leaves, and what it took.

    `taken_bytes` is what it took of its device, `free_before` what the device had free while it still lived; both
    are None on a CPU.
    """

    pid: int
    key: str
    backend: Backend
    device: int
    taken_bytes: int | None = None
    free_before: int | None = None


@dataclass(frozen=True, slots=True)
class ReclaimResult:
    """Whether the memory of a worker was released (None: unknown), and which processes hold what was not."""

    came_back: bool | None
    held_by: tuple[MemoryHolder, ...] = ()


class ReclaimChecker:
    """Reads free memory before and after a worker's end.

    Args:
        devices: detects what GPUs have free.
    """

    def __init__(self, devices: DeviceMonitor) -> None:
        self._devices = devices

    async def free_on(self, backend: Backend, device: int) -> int | None:
        """Return what a GPU has free now; None for a CPU, where leftover processes are searched instead."""
        if backend is Backend.CPU or backend in (await self._devices.known()).faults:
            return None  # a broken driver would be waited for at every stop
        found = _find(await self._devices.look(), backend, device)
        return None if found is None else found.free_bytes

    async def check(self, stopped: Sequence[StoppedWorker]) -> list[ReclaimResult]:
        """Check several workers, all of which have ended."""
        left = await asyncio.to_thread(leftover_processes, {each.key: each.pid for each in stopped})
        return [await self._check_one(each, left[each.key]) for each in stopped]

    async def _check_one(self, stopped: StoppedWorker, left: list[MemoryHolder]) -> ReclaimResult:
        if left:
            return ReclaimResult(came_back=False, held_by=tuple(left))
        if stopped.backend is Backend.CPU:
            return ReclaimResult(came_back=True)
        if stopped.taken_bytes is None or stopped.free_before is None:
            return ReclaimResult(came_back=None)
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            found = _find(await self._devices.look(), stopped.backend, stopped.device)
            if found is not None and found.free_bytes - stopped.free_before >= RETURNED_SHARE * stopped.taken_bytes:
                return ReclaimResult(came_back=True)
            if asyncio.get_running_loop().time() >= deadline:
                break
            await asyncio.sleep(LOOK_AGAIN_S)
        if found is None:
            return ReclaimResult(came_back=None)
        return ReclaimResult(came_back=False, held_by=tuple(found.held_by))


def leftover_processes(workers: Mapping[str, int]) -> dict[str, list[MemoryHolder]]:
    """Find the processes that workers left, by key: of their sessions, or with their key. Blocking.

    Args:
        workers: process id by key, of workers that have ended.
    """
    found: dict[str, list[MemoryHolder]] = {key: [] for key in workers}
    sessions = {pid: key for key, pid in workers.items()}
    for process in psutil.process_iter():
        try:
            if process.pid in sessions or process.status() == psutil.STATUS_ZOMBIE:
                continue
            key = sessions.get(os.getsid(process.pid)) or process.environ().get(KEY_VARIABLE, "")
            if key in found:
                found[key].append(named(process.pid, int(process.memory_info().rss)))
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or another user's and so not ours
    return found


def _find(detection: Detection, backend: Backend, index: int) -> Device | None:
    return next((device for device in detection.devices if (device.backend, device.index) == (backend, index)), None)
