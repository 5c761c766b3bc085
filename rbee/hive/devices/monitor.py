"""Keep what devices this machine has and how much of their memory is free, as last detected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rbee.contracts.devices import Detection
from rbee.hive.devices import probe

WATCH_INTERVAL_S = 10.0
# A change of free memory below this share of the total is not published.
NOTABLE = 0.02


class DeviceMonitor:
    """The devices of this machine.

    Args:
        limit_s: how long a GPU driver may take to answer.
        on_change: called with the new detection after a notable change.
    """

    def __init__(self, limit_s: float, on_change: Callable[[Detection], None]) -> None:
        self._limit_s = limit_s
        self._on_change = on_change
        self._asking: asyncio.Task[Detection] | None = None
        self._known: Detection | None = None

    async def known(self) -> Detection:
        """Return what was last detected; detect if nothing was."""
        return self._known or await self.look()

    async def look(self) -> Detection:
        """Detect now; concurrent callers share one detection."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._look())
        return await asyncio.shield(self._asking)

    async def watch(self) -> None:
        """Detect every few seconds, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(WATCH_INTERVAL_S)

    async def _look(self) -> Detection:
        found = await probe.detect(self._limit_s)
        before, self._known = self._known, found
        if before is not None and _differ(before, found):
            self._on_change(found)
        return found


def _differ(before: Detection, after: Detection) -> bool:
    def identity(detection: Detection) -> list[tuple[str, int, int]]:
        return [(device.backend.value, device.index, device.total_bytes) for device in detection.devices]

    if before.faults != after.faults or identity(before) != identity(after):
        return True
    return any(
        abs(old.free_bytes - new.free_bytes) > NOTABLE * new.total_bytes
        for old, new in zip(before.devices, after.devices, strict=True)
    )
