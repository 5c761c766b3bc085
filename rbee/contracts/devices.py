"""The compute devices of a machine."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field

_MB = 1024 * 1024
MAX_YIELD_S = 31_536_000.0
MAX_DRAIN_S = 3600.0


class Backend(StrEnum):
    """A compute backend; the order of the members is the order of preference."""

    CUDA = "cuda"
    METAL = "metal"
    CPU = "cpu"


class MemoryHolder(BaseModel):
    """A process that holds memory of a device."""

    pid: int
    name: str
    bytes: int = Field(ge=0)


class Device(BaseModel):
    """One device of a backend; `index` counts from 0 within the backend, memory is in bytes.

    `budget_bytes` is what workers may take of it in all, where its hive sets that: the total is then no more, and what
    is free is what those that run, or still load, were not expected to take.
    `foreign_bytes` is what processes hold that are no workers of the hive, as far as the driver tells; `held_by` are
    the largest of these.
    `energy_j` are the joules that it has taken since its driver was loaded, where it tells.
    """

    model_config = ConfigDict(frozen=True)

    backend: Backend
    index: int = Field(ge=0)
    name: str
    total_bytes: int = Field(ge=0)
    free_bytes: int = Field(ge=0)
    budget_bytes: int | None = Field(default=None, ge=0, exclude_if=lambda value: value is None)
    foreign_bytes: int = Field(default=0, ge=0)
    held_by: list[MemoryHolder] = Field(default_factory=list)
    energy_j: float | None = Field(default=None, ge=0, exclude_if=lambda value: value is None)

    @property
    def foreign_explained(self) -> str:
        """Return how many MB other programs hold and which the most, to follow what is free; empty where none do."""
        if self.foreign_bytes < _MB or not self.held_by:
            return ""
        most = self.held_by[0]
        largest = f"{most.name} (process {most.pid}) with {most.bytes // _MB} MB"
        return f"; other programs hold {self.foreign_bytes // _MB} MB, the most {largest}"


class DeviceEnergy(BaseModel):
    """What a device has taken since its driver was loaded, in joules."""

    backend: Backend
    index: int = Field(ge=0)
    joules: float = Field(ge=0)


class Detection(BaseModel):
    """The devices found on a machine, and the backends that were found but cannot be used, with the reason."""

    devices: list[Device]
    faults: dict[Backend, str] = Field(default_factory=dict)

    @cached_property
    def backends(self) -> list[Backend]:
        """Return the backends that have a device, best first: the registry's `backends`."""
        present = {device.backend for device in self.devices}
        return [backend for backend in Backend if backend in present]

    @cached_property
    def best(self) -> Backend | None:
        """Return the best backend; one whose driver is broken counts too, so that nothing falls back silently."""
        return next((backend for backend in Backend if backend in self.faults or backend in self.backends), None)

    @property
    def counts(self) -> dict[Backend, int]:
        """Count devices by backend: the registry's `devices`, such as {"cuda": 2, "cpu": 1}."""
        return {backend: sum(1 for device in self.devices if device.backend is backend) for backend in self.backends}


class YieldedDevice(BaseModel):
    """A device that is left to another program: no worker runs there. Times in seconds since the epoch.

    Without `until_unix` it stays so until a command resumes it.
    """

    model_config = ConfigDict(frozen=True)

    backend: Backend
    device: int = Field(ge=0)
    since_unix: float
    until_unix: float | None = None

    @property
    def explained(self) -> str:
        """Return that it is yielded and until when, as a part of a sentence."""
        if self.until_unix is None:
            return "yielded to another program"
        return f"yielded to another program until {datetime.fromtimestamp(self.until_unix, UTC):%Y-%m-%d %H:%M} UTC"


class DeviceSelection(BaseModel):
    """Devices of one machine: without `device` every device of the backend, without both every device there is.

    `device` without `backend` is one of the best backend of the machine.
    """

    model_config = ConfigDict(extra="forbid")

    backend: Backend | None = None
    device: int | None = Field(default=None, ge=0)


class YieldRequest(DeviceSelection):
    """A request to empty devices for another program: `POST /v1/devices/yield` of a hive. Times in seconds.

    Without `for_s` they stay yielded until they are resumed. `drain_s` is how long running requests may take to end;
    without it, as long as the hive gives a worker that is stopped.
    """

    for_s: float | None = Field(default=None, gt=0, le=MAX_YIELD_S)
    drain_s: float | None = Field(default=None, ge=0, le=MAX_DRAIN_S)
