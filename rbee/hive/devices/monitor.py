"""Keep what devices this machine has and how much of their memory is free, as last detected."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from rbee.contracts.devices import Detection, DeviceEnergy
from rbee.hive.devices import probe
from rbee.hive.devices.budget import CpuBudget

log = logging.getLogger(__name__)
WATCH_INTERVAL_S = 10.0
# A change of free memory below this share of the total is not published.
NOTABLE = 0.02


class DeviceMonitor:
    """The devices of this machine.

    Args:
        limit_s: how long a GPU driver may take to answer.
        on_change: called with the devices after a notable change.
        cpu_budget: returns what workers may take of the machine's memory; None where they may take what is free.
        own: returns the process ids of the workers, whose memory is not foreign.
    """

    def __init__(
        self,
        limit_s: float,
        on_change: Callable[[Detection], None],
        cpu_budget: Callable[[], CpuBudget | None] = lambda: None,
        *,
        own: Callable[[], Collection[int]],
    ) -> None:
        self._limit_s = limit_s
        self._own = own
        self._on_change = on_change
        self.cpu_budget = cpu_budget
        self._asking: asyncio.Task[Detection] | None = None
        self._detected: Detection | None = None
        self._published: Detection | None = None

    async def known(self) -> Detection:
        """Return what was last detected, within the budget; detect if nothing was."""
        return self._limited(self._detected or await self.detect())

    async def look(self) -> Detection:
        """Detect now, and return what of it is within the budget."""
        return self._limited(await self.detect())

    async def detect(self) -> Detection:
        """Return what the machine has now, whatever the budget; concurrent callers share one detection."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._detect())
        return await asyncio.shield(self._asking)

    async def watch(self) -> None:
        """Detect every few seconds, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(WATCH_INTERVAL_S)

    def energy(self) -> list[DeviceEnergy]:
        """Return what devices that tell had taken when they were last detected."""
        return [
            DeviceEnergy(backend=device.backend, index=device.index, joules=device.energy_j)
            for device in (self._detected.devices if self._detected is not None else ())
            if device.energy_j is not None
        ]

    def budget_changed(self) -> None:
        """Publish what is left of the budget now, however little that differs from before."""
        if self._detected is None or (budget := self.cpu_budget()) is None:
            return
        now = budget.limited(self._detected)
        if now != self._published:
            self._publish(now)

    def _limited(self, detection: Detection) -> Detection:
        budget = self.cpu_budget()
        return detection if budget is None else budget.limited(detection)

    async def _detect(self) -> Detection:
        before, self._detected = self._detected, await probe.detect(self._limit_s, self._own)
        _log_foreign(before, self._detected)
        now = self._limited(self._detected)
        if self._published is None:
            self._published = now
        elif _differ(self._published, now):
            self._publish(now)
        return self._detected

    def _publish(self, detection: Detection) -> None:
        self._published = detection
        self._on_change(detection)


def _log_foreign(before: Detection | None, after: Detection) -> None:
    """Log the devices of which other programs hold notably more or less memory than before."""
    held = {(one.backend, one.index): one.foreign_bytes for one in (before.devices if before else ())}
    for device in after.devices:
        if abs(device.foreign_bytes - held.get((device.backend, device.index), 0)) > NOTABLE * device.total_bytes:
            holders = [f"{holder.name} ({holder.pid})" for holder in device.held_by]
            fields = {"device": f"{device.backend}:{device.index}", "bytes": device.foreign_bytes, "held_by": holders}
            log.info("memory held by other programs", extra={"fields": fields})


def _differ(before: Detection, after: Detection) -> bool:
    def identity(detection: Detection) -> list[tuple[str, int, int]]:
        return [(device.backend.value, device.index, device.total_bytes) for device in detection.devices]

    if before.faults != after.faults or identity(before) != identity(after):
        return True
    return any(
        max(abs(old.free_bytes - new.free_bytes), abs(old.foreign_bytes - new.foreign_bytes))
        > NOTABLE * new.total_bytes
        for old, new in zip(before.devices, after.devices, strict=True)
    )
