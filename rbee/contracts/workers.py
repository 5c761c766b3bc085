"""Workers as their hive and queen see them, and the messages about their life."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from rbee.contracts.devices import Backend

MAX_MODEL_CHARS = 2048
ModelText = Annotated[str, Field(min_length=1, max_length=MAX_MODEL_CHARS)]


class WorkerState(StrEnum):
    """Where a worker is in its life; `busy` means that no slot is free."""

    STARTING = "starting"
    LOADING = "loading"
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    STOPPING = "stopping"
    CRASHED = "crashed"

    @property
    def serves(self) -> bool:
        """Tell whether a request may be tried on a worker in this state."""
        return self in (WorkerState.IDLE, WorkerState.BUSY)


class WorkerInfo(BaseModel):
    """One worker, as lists show it. `model_ref` is the canonical reference; `last_active_unix` in seconds."""

    model_config = ConfigDict(protected_namespaces=())

    worker_id: str
    node: str = ""
    url: str
    model_ref: str
    backend: Backend
    device: int
    state: WorkerState
    slots_total: int = 0
    slots_available: int = 0
    pid: int | None = None
    context_length: int | None = None
    memory_bytes: int | None = None
    started_unix: float = 0.0
    last_active_unix: float = 0.0
    detail: str = ""


class WorkerAccess(BaseModel):
    """A worker with the key that opens it: only ever sent on the control channel and to its spawner."""

    worker: WorkerInfo
    api_key: str


class SpawnRequest(BaseModel):
    """Ask a hive for a worker: `POST /v1/workers/spawn`; answered at once with state `loading`.

    `device` None means the device of the backend with the most free memory;
    `backend` None means the best backend that the machine has.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: ModelText
    backend: Backend | None = None
    device: int | None = Field(default=None, ge=0)
    slots: int | None = Field(default=None, ge=1, le=64)
    context_length: int | None = Field(default=None, ge=64, description="tokens per slot")
    join: bool = Field(
        default=False,
        description="a worker for the same that is loading already will do: the hive may be replacing one itself",
    )
    in_quarantine_too: bool = Field(
        default=False, description="try once more a model or a device that is quarantined: somebody asked for just that"
    )


class ReadyReport(BaseModel):
    """What a worker tells its hive when its port is bound: `POST /v1/workers/ready`."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    worker_id: str
    url: str
    model_ref: str
    backend: Backend
    device: int


class ReadyAck(BaseModel):
    """The hive's answer to a ready report."""

    message: str
    worker_id: str


class ReadyStatus(BaseModel):
    """`GET /v1/ready` of a worker."""

    model_config = ConfigDict(protected_namespaces=())

    ready: bool
    state: WorkerState
    model_loaded: bool = False
    progress_url: str | None = Field(default=None, exclude_if=lambda url: url is None)


class SlotInfo(BaseModel):
    """One slot of a worker: its request if any, tokens in its cache, tokens generated so far."""

    index: int
    request_id: str | None = None
    cached_tokens: int = 0
    generated_tokens: int = 0


class SlotsStatus(BaseModel):
    """`GET /v1/slots` of a worker."""

    slots_total: int
    slots_available: int
    state: WorkerState
    slots: list[SlotInfo] = Field(default_factory=list)


class WorkerHealth(BaseModel):
    """`GET /v1/health` of a worker; `idle_s` is how long no slot has been in use, in seconds.

    `stalled_s` is the longest time that a slot in use has gone without a token.
    """

    model_config = ConfigDict(protected_namespaces=())

    status: str = "alive"
    version: str
    worker_id: str
    state: WorkerState
    slots_total: int
    slots_available: int
    model_ref: str
    backend: Backend
    device: int
    context_length: int = 0
    idle_s: float = 0.0
    stalled_s: float = 0.0
    memory_bytes: int | None = None


class MemoryHolder(BaseModel):
    """A process that still holds memory of a worker that is gone."""

    pid: int
    name: str
    bytes: int = Field(ge=0)


class WorkerStopReceipt(BaseModel):
    """What became of one worker that was asked to stop.

    `memory_returned` says whether its memory came back, which was looked at after its end; None means that nobody
    could look. `held_by` are the processes that still hold some of it.
    """

    worker_id: str
    pid: int | None = None
    gone: bool
    killed: bool = False
    seconds: float = 0.0
    memory_returned_bytes: int | None = None
    memory_returned: bool | None = None
    held_by: list[MemoryHolder] = Field(default_factory=list)


class Quarantine(BaseModel):
    """A model, or a device, on which every worker crashed, and which is not used for a while.

    `model_ref` is None for a device, `backend` and `device` are None for a model. Time in seconds since the epoch.
    """

    model_config = ConfigDict(protected_namespaces=())

    model_ref: str | None = None
    backend: Backend | None = None
    device: int | None = None
    crashes: int
    reason: str
    until_unix: float

    @property
    def what(self) -> str:
        """Name it for a person."""
        return self.model_ref or f"{self.backend} device {self.device}"
