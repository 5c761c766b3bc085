"""What a machine computes with."""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field


class Backend(StrEnum):
    """A way to compute; the order of the members is the order of preference."""

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
    """What was found on a machine, and what was looked for and could not be used, with the reason."""

    devices: list[Device]
    faults: dict[Backend, str] = Field(default_factory=dict)

    @cached_property
    def backends(self) -> list[Backend]:
        """List the backends that have a device, best first: the registry's `backends`."""
        present = {device.backend for device in self.devices}
        return [backend for backend in Backend if backend in present]

    @cached_property
    def best(self) -> Backend | None:
        """Name the best backend; a GPU whose driver is broken is named too, so that nothing falls back."""
        return next((backend for backend in Backend if backend in self.faults or backend in self.backends), None)

    @property
    def counts(self) -> dict[Backend, int]:
        """Count devices by backend: the registry's `devices`, such as {"cuda": 2, "cpu": 1}."""
        return {backend: sum(1 for device in self.devices if device.backend is backend) for backend in self.backends}
