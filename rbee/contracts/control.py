"""The control channel between queen and hive: one WebSocket, JSON text frames, tagged by `kind`.

The queen connects; the hive sends `Hello` first, then every change as it happens and a `Heartbeat` every 2 s.
The queen sends a `Lease` every 2 s. Nothing in the messages depends on which side connected.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter

from rbee.contracts.devices import Detection, DeviceEnergy, YieldedDevice
from rbee.contracts.error_body import ErrorDetail
from rbee.contracts.ids import API_VERSION
from rbee.contracts.models import CatalogEntry
from rbee.contracts.workers import Quarantine, WorkerAccess

HEARTBEAT_INTERVAL_S = 2.0
SILENCE_LIMIT_S = 10.0


class Hello(BaseModel):
    """The whole state of a hive; it replaces what the queen knew of it.

    `models` is None from a hive that has not read its catalog yet: `models_changed` follows. `context_length` is how
    many tokens its workers take unless they are asked for otherwise, `idle_timeout_s` how long an unused one stays.
    """

    kind: Literal["hello"] = "hello"
    hive_id: str
    version: str
    api_version: str = API_VERSION
    detection: Detection
    models: list[CatalogEntry] | None
    workers: list[WorkerAccess]
    quarantined: list[Quarantine] = Field(default_factory=list)
    yielded: list[YieldedDevice] = Field(default_factory=list)
    context_length: int | None = None
    idle_timeout_s: float | None = None


class WorkerChanged(BaseModel):
    """A worker that is new or whose state changed."""

    kind: Literal["worker_changed"] = "worker_changed"
    link: WorkerAccess


class WorkerGone(BaseModel):
    """A worker that has exited; `reason` is for people, `log_tail` holds the last lines of its log.

    `error` is the error that the worker reported itself, if it could (a model that failed to load).
    `clients` are the ids, as queens gave them, of those whose requests ran when it crashed, or had run last.
    """

    kind: Literal["worker_gone"] = "worker_gone"
    worker_id: str
    reason: str
    crashed: bool = False
    log_tail: list[str] = Field(default_factory=list)
    clients: list[str] = Field(default_factory=list)
    error: ErrorDetail | None = None


class ModelsChanged(BaseModel):
    """The whole catalog, after a change."""

    kind: Literal["models_changed"] = "models_changed"
    models: list[CatalogEntry]


class DevicesChanged(BaseModel):
    """Devices and their free memory, after a change."""

    kind: Literal["devices_changed"] = "devices_changed"
    detection: Detection


class QuarantineChanged(BaseModel):
    """All models and devices in quarantine, after a change."""

    kind: Literal["quarantine_changed"] = "quarantine_changed"
    quarantined: list[Quarantine]


class YieldedChanged(BaseModel):
    """All devices that are yielded to other programs, after a change."""

    kind: Literal["yielded_changed"] = "yielded_changed"
    yielded: list[YieldedDevice]


class Heartbeat(BaseModel):
    """A sign that the hive is alive, with the last reading of each device that tells what it takes."""

    kind: Literal["beat"] = "beat"
    energy: list[DeviceEnergy] = Field(default_factory=list, exclude_if=lambda value: not value)


class Closing(BaseModel):
    """A notice that the hive is draining: nothing may be placed on it."""

    kind: Literal["closing"] = "closing"


class Lease(BaseModel):
    """A sign that the queen is alive; the hive keeps its workers for another `fence_after_s` seconds."""

    kind: Literal["lease"] = "lease"
    queen_id: str


HiveMessage = Annotated[
    Hello
    | WorkerChanged
    | WorkerGone
    | ModelsChanged
    | DevicesChanged
    | QuarantineChanged
    | YieldedChanged
    | Heartbeat
    | Closing,
    Field(discriminator="kind"),
]
HIVE_MESSAGE: TypeAdapter[HiveMessage] = TypeAdapter(HiveMessage)
QUEEN_MESSAGE: TypeAdapter[Lease] = TypeAdapter(Lease)
