"""The events of supervision: what happens to workers, `at` in seconds of any steady clock."""

from __future__ import annotations

from dataclasses import dataclass

from rbee.contracts.workers import WorkerState


@dataclass(frozen=True, slots=True)
class Spawned:
    """A worker's process exists.

    `memory_limit` is what it may hold of the machine's memory, 0 means anything; `idle_s` is how long it stays while
    nobody uses it, None means for ever.
    """

    worker_id: str
    at: float
    memory_limit: int = 0
    idle_s: float | None = None


@dataclass(frozen=True, slots=True)
class Bound:
    """A worker's port is bound."""

    worker_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Reported:
    """A worker reported its state."""

    worker_id: str
    at: float
    state: WorkerState
    slots_total: int
    slots_available: int


@dataclass(frozen=True, slots=True)
class HealthCheckAnswered:
    """A worker answered a health check.

    `stalled_s` is the longest a busy slot has gone without a token, `memory_bytes` what its process holds.
    """

    worker_id: str
    at: float
    state: WorkerState
    slots_total: int
    slots_available: int
    stalled_s: float = 0.0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class HealthCheckMissed:
    """A health check was not answered."""

    worker_id: str
    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class ModelChanged:
    """The file of a worker's model was *overwritten*, or else another one took its place."""

    worker_id: str
    at: float
    overwritten: bool


@dataclass(frozen=True, slots=True)
class StopAsked:
    """A worker is to be stopped; its requests may take *drain_s* seconds to end, where that is said."""

    worker_id: str
    at: float
    reason: str
    drain_s: float | None = None


@dataclass(frozen=True, slots=True)
class Exited:
    """A worker's process has ended; `cause` is why, where the kernel says so."""

    worker_id: str
    at: float
    exit_code: int
    cause: str = ""


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """A queen is connected and alive."""

    at: float


@dataclass(frozen=True, slots=True)
class Drained:
    """The hive is shutting down: every worker is stopped, and none is started."""

    at: float
    reason: str = "the hive is stopping"


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""

    at: float


Event = (
    Spawned
    | Bound
    | Reported
    | HealthCheckAnswered
    | HealthCheckMissed
    | ModelChanged
    | StopAsked
    | Exited
    | LeaseRenewed
    | Drained
    | Tick
)
