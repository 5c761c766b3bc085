"""Limit what workers on the CPU may take of the machine's memory, where the operator says so. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from rbee.contracts.devices import Backend, Detection, Device


@dataclass(frozen=True, slots=True)
class CpuBudget:
    """What workers on the CPU may take in all, and what those that run were expected to take, in bytes."""

    limit_bytes: int
    taken_bytes: int

    @property
    def left_bytes(self) -> int:
        """Return what is left for further workers."""
        return max(self.limit_bytes - self.taken_bytes, 0)

    def limited(self, detection: Detection) -> Detection:
        """Return the devices with no more memory on the CPU than the budget has."""
        return detection.model_copy(update={"devices": [self._limited(device) for device in detection.devices]})

    def _limited(self, device: Device) -> Device:
        if device.backend is not Backend.CPU:
            return device
        total, free = min(device.total_bytes, self.limit_bytes), min(device.free_bytes, self.left_bytes)
        return device.model_copy(update={"total_bytes": total, "free_bytes": free, "budget_bytes": self.limit_bytes})
