"""Workers as their hive and queen see them, and the messages about their lifecycle."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rbee.contracts import engine
from rbee.contracts.devices import MAX_DRAIN_S, Backend, MemoryHolder
from rbee.contracts.models import Capability
from rbee.contracts.patterns import NAME, WHOLE_PATH

MAX_MODEL_CHARS = 2048
MAX_SLOTS = 64
MAX_KEEP_S = 31_536_000.0
ModelText = Annotated[str, Field(min_length=1, max_length=MAX_MODEL_CHARS)]
ServedName = Annotated[str, Field(pattern=NAME, description="a name by which clients ask for a model")]
Keep = Literal["always"] | Annotated[float, Field(gt=0, le=MAX_KEEP_S)]
"""How long an unused worker stays, in seconds, or `always`."""


class WorkerOptions(BaseModel):
    """How a worker loads and runs its model; None leaves it to the settings of its hive."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    slots: int | None = Field(default=None, ge=1, le=MAX_SLOTS, description="requests that it serves at once")
    context_length: int | None = Field(default=None, ge=64, description="tokens per slot")
    cache_type: engine.CacheType | None = None
    flash_attention: engine.FlashAttention = None
    prompt_batch: engine.PromptBatch = None
    speculate: engine.Speculate | None = None
    threads: int | None = Field(default=None, ge=1, le=1024, description="compute threads; default: physical cores")
    chat_template_file: str | None = Field(
        default=None,
        pattern=WHOLE_PATH,
        max_length=4096,
        description="a chat template instead of the model's own: a file on the node, by its whole path",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if reason := engine.conflict(self.cache_type or "f16", flash_attention=self.flash_attention):
            raise ValueError(reason)
        return self

    @property
    def options(self) -> dict[str, Any]:
        """Return the options that are not left to the hive."""
        return self.model_dump(mode="json", include=set(WorkerOptions.model_fields), exclude_none=True)


class WorkerState(StrEnum):
    """The lifecycle state of a worker; `busy` means that no slot is free."""

    STARTING = "starting"
    LOADING = "loading"
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    STOPPING = "stopping"
    CRASHED = "crashed"

    @property
    def serves(self) -> bool:
        """Return whether a worker in this state may be sent requests."""
        return self in (WorkerState.IDLE, WorkerState.BUSY)


class WorkerInfo(BaseModel):
    """One worker in a list. `model_ref` is the canonical reference; `last_active_unix` in seconds.

    `capabilities` are those of its model; none until its chat template was opened. `served` is the declared model that
    it was started for, `revision` that of its declaration and `declared_by` the queen that has it. `need_bytes` is the
    memory that it was expected to take; of that, `weights_bytes` are for the weights, `cache_bytes` for the keys and
    values of all slots, the rest for buffers and the process. `keep` and `options` are what was asked for; the rest of
    a worker's options are its hive's.
    """

    model_config = ConfigDict(protected_namespaces=())

    worker_id: str
    node: str = ""
    url: str
    model_ref: str
    served: str | None = None
    revision: str | None = None
    declared_by: str | None = None
    backend: Backend
    device: int
    state: WorkerState
    slots_total: int = 0
    slots_available: int = 0
    pid: int | None = None
    context_length: int | None = None
    memory_bytes: int | None = None
    need_bytes: int | None = None
    weights_bytes: int | None = None
    cache_bytes: int | None = None
    keep: Keep | None = None
    options: dict[str, bool | int | str] = Field(default_factory=dict)
    started_unix: float = 0.0
    last_active_unix: float = 0.0
    capabilities: list[Capability] = Field(default_factory=list)
    detail: str = ""


class WorkerAccess(BaseModel):
    """A worker with its API key: sent only over the control channel and to its spawner."""

    worker: WorkerInfo
    api_key: str


class SpawnRequest(WorkerOptions):
    """A request for a worker: `POST /v1/workers/spawn`; the response comes at once, with state `loading`.

    `device` None means the device of the backend with the most free memory;
    `backend` None means the best backend that the machine has. `keep` None means the idle time of the hive.
    `served`, `revision` and `declared_by` are those of the declared model that it is started for.
    """

    model: ModelText
    backend: Backend | None = None
    device: int | None = Field(default=None, ge=0)
    keep: Keep | None = None
    served: ServedName | None = None
    revision: str | None = Field(default=None, max_length=64)
    declared_by: str | None = Field(default=None, max_length=64)
    join: bool = Field(
        default=False,
        description="accept a worker that is already loading the same model: the hive may be replacing one itself",
    )
    in_quarantine_too: bool = Field(
        default=False, description="try a quarantined model or device once more, because a person asked for it"
    )


class WorkerEstimate(BaseModel):
    """`POST /v1/workers/estimate`: the bytes that such a worker is expected to take, by backend of the machine."""

    need_bytes: dict[Backend, int]


class ReadyReport(BaseModel):
    """The report of a worker to its hive that its port is bound: `POST /v1/workers/ready`."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    worker_id: str
    url: str
    model_ref: str
    backend: Backend
    device: int


class ReadyAck(BaseModel):
    """The hive's response to a ready report."""

    message: str
    worker_id: str


class ReadyStatus(BaseModel):
    """`GET /v1/ready` of a worker."""

    model_config = ConfigDict(protected_namespaces=())

    ready: bool
    state: WorkerState
    model_loaded: bool = False
    progress_url: str | None = Field(default=None, exclude_if=lambda url: url is None)
    warning: str | None = Field(default=None, exclude_if=lambda warning: warning is None)


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
    """`GET /v1/health` of a worker; `idle_s` is how long all slots have been free, in seconds.

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


class WorkerShutdown(BaseModel):
    """`POST /v1/admin/shutdown` of a worker: how long its running requests may take to end, in seconds."""

    model_config = ConfigDict(extra="forbid")

    drain_s: float | None = Field(default=None, ge=0, le=MAX_DRAIN_S)


class WorkerStopReceipt(BaseModel):
    """The outcome of stopping one worker.

    `memory_returned` says whether its memory was free again after it exited; None means that this could not be
    measured. `held_by` lists the processes that still hold some of it. `requests_stopped` counts the requests that had
    not ended in time.
    """

    worker_id: str
    pid: int | None = None
    gone: bool
    killed: bool = False
    seconds: float = 0.0
    requests_stopped: int = 0
    memory_returned_bytes: int | None = None
    memory_returned: bool | None = None
    held_by: list[MemoryHolder] = Field(default_factory=list)


class Quarantine(BaseModel):
    """A model or device on which every worker crashed, and which is not used for a while.

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
        """Return the name of the model or device, for people."""
        return self.model_ref or f"{self.backend} device {self.device}"
