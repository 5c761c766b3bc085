"""The compute devices of a machine."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field


class Backend(StrEnum):
    """A compute backend; the order of the members is the order of preference."""

    CUDA = "cuda"
    METAL = "metal"
    CPU = "cpu"


class Device(BaseModel):
    """One device of a backend; `index` counts from 0 within the backend, memory is in bytes."""

    model_config = ConfigDict(frozen=True)

    backend: Backend
    index: int = Field(ge=0)
    name: str
    total_bytes: int = Field(ge=0)
    free_bytes: int = Field(ge=0)


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
