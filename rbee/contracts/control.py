"""The control channel between queen and hive: one WebSocket, JSON text frames, tagged by `kind`.

The queen dials; the hive speaks first, with `Hello`, then sends every change as it happens and a `Beat` every 2 s.
The queen sends a `Lease` every 2 s. Nothing in the messages depends on who dialled.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter

from rbee.contracts.devices import Detection
from rbee.contracts.error_body import ErrorDetail
from rbee.contracts.ids import API_VERSION
from rbee.contracts.models import CatalogEntry
from rbee.contracts.workers import Quarantine, WorkerAccess

BEAT_INTERVAL_S = 2.0
SILENCE_LIMIT_S = 10.0


class Hello(BaseModel):
    """What the hive is and has; the queen replaces all it knew of it.

    `models` is None from a hive that has not looked into its catalogue yet: `models_changed` follows.
    """

    kind: Literal["hello"] = "hello"
    hive_id: str
    version: str
    api_version: str = API_VERSION
    detection: Detection
    models: list[CatalogEntry] | None
    workers: list[WorkerAccess]
    quarantined: list[Quarantine] = Field(default_factory=list)


class WorkerChanged(BaseModel):
    """A worker is new or changed state."""

    kind: Literal["worker_changed"] = "worker_changed"
    link: WorkerAccess


class WorkerGone(BaseModel):
    """A worker has ended; `reason` is for people, `log_tail` its last lines.

    `error` is the worker's own account, where it could give one (a model that would not load).
    """

    kind: Literal["worker_gone"] = "worker_gone"
    worker_id: str
    reason: str
    crashed: bool = False
    log_tail: list[str] = Field(default_factory=list)
    error: ErrorDetail | None = None


class ModelsChanged(BaseModel):
    """The whole catalogue, after a change."""

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


class Heartbeat(BaseModel):
    """The hive lives."""

    kind: Literal["beat"] = "beat"


class Closing(BaseModel):
    """The hive is draining: place nothing on it."""

    kind: Literal["closing"] = "closing"


class Lease(BaseModel):
    """The queen lives; the hive keeps its workers for another `fence_after` seconds."""

    kind: Literal["lease"] = "lease"
    queen_id: str


HiveMessage = Annotated[
    Hello | WorkerChanged | WorkerGone | ModelsChanged | DevicesChanged | QuarantineChanged | Heartbeat | Closing,
    Field(discriminator="kind"),
]
HIVE_MESSAGE: TypeAdapter[HiveMessage] = TypeAdapter(HiveMessage)
QUEEN_MESSAGE: TypeAdapter[Lease] = TypeAdapter(Lease)
