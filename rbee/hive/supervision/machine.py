"""Decide what happens to each worker: events go in, instructions come out; the pool around it does the I/O.

Pure: time comes in as `at` (seconds of any steady clock), and nothing here waits, reads or writes.
Phases of a worker: starting (process exists) -> loading (port bound) -> serving (idle or busy) -> stopping -> gone.
From every phase a worker may exit; a worker is removed when, and only when, its process has exited.

Invariants: a stopping worker has a time by which it is killed; no worker is told to stop twice;
a worker that was killed gets no further instruction; slots available never exceed slots in all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal

from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import WorkerState
from rbee.hive.supervision.events import (
    Bound,
    Drained,
    Event,
    Exited,
    HealthCheckAnswered,
    HealthCheckMissed,
    LeaseRenewed,
    ModelChanged,
    Reported,
    Spawned,
    StopAsked,
    Tick,
)
from rbee.hive.supervision.instructions import (
    Check,
    Instruction,
    Kill,
    RemoveWorker,
    Replace,
    Report,
    ShutDownHive,
    Stop,
)

_MIB: Final = 1024 * 1024
# What a worker that was told its time may take beyond it, to cancel what still runs and to free its model.
_CANCEL_S: Final = 10.0
Phase = Literal["starting", "loading", "serving", "stopping"]

# A worker that may be given requests, or may soon be.
ALIVE: Final[frozenset[Phase]] = frozenset({"starting", "loading", "serving"})


@dataclass(frozen=True, slots=True)
class Policy:
    """The time limits, in seconds, and how many health checks may go unanswered."""

    bind_s: float = 30.0
    loading_s: float = 300.0
    health_interval_s: float = 30.0
    misses_allowed: int = 3
    stall_s: float = 60.0
    graceful_s: float = 30.0
    fence_s: float = 60.0
    on_queen_lost: Literal["stop-workers", "exit"] = "stop-workers"


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """The state of one worker; times in seconds of the caller's clock."""

    worker_id: str
    phase: Phase
    since: float
    state: WorkerState = WorkerState.LOADING
    slots_total: int = 0
    slots_available: int = 0
    memory_limit: int = 0
    idle_s: float | None = None
    active_at: float = 0.0
    check_at: float = 0.0
    checking: bool = False
    misses: int = 0
    killed: bool = False
    replace: bool = False
    reason: str = ""
    code: ErrorCode | None = None
    drain_s: float | None = None

    @property
    def unused(self) -> bool:
        """Return whether no slot is in use."""
        return self.phase == "serving" and self.slots_available == self.slots_total


@dataclass(slots=True)
class Supervision:
    """All workers of one hive. `handle` takes one event and returns the instructions that follow from it."""

    policy: Policy
    lease_renewed_at: float
    workers: dict[str, WorkerStatus] = field(default_factory=dict)
    draining: bool = False
    fenced: bool = False

    def handle(self, event: Event) -> list[Instruction]:
        """Return the instructions that follow from *event*; an event about an unknown worker changes nothing."""
        match event:
            case Spawned():
                return self._spawned(event)
            case LeaseRenewed():
                self.lease_renewed_at, self.fenced = event.at, False
                return []
            case Drained():
                self.draining = True
                return [step for status in self._all() for step in self._stop(status, event.at, event.reason)]
            case Tick():
                return self._tick(event.at)
            case _:
                status = self.workers.get(event.worker_id)
                return [] if status is None else self._on_worker(status, event)

    def _on_worker(
        self,
        status: WorkerStatus,
        event: Bound | Reported | HealthCheckAnswered | HealthCheckMissed | ModelChanged | StopAsked | Exited,
    ) -> list[Instruction]:
        match event:
            case Bound():
                return self._bound(status, event)
            case Reported() | HealthCheckAnswered():
                return self._heard(status, event)
            case HealthCheckMissed():
                return self._missed(status, event)
            case ModelChanged():
                return self._model_changed(status, event)
            case StopAsked():
                return self._stop(status, event.at, event.reason, drain_s=event.drain_s)
            case Exited():
                return self._exited(status, event)

    def check_invariants(self) -> None:
        """Raise AssertionError if the state contradicts itself."""
        for worker_id, status in self.workers.items():
            assert status.worker_id == worker_id
            assert 0 <= status.slots_available <= status.slots_total
            assert not status.killed or status.phase == "stopping"
            assert status.phase != "stopping" or status.reason
            assert (status.phase == "serving") == status.state.serves
        assert not self.draining or all(status.phase == "stopping" for status in self.workers.values())

    def _all(self) -> list[WorkerStatus]:
        return list(self.workers.values())

    def _store(self, status: WorkerStatus) -> None:
        self.workers[status.worker_id] = status

    def _spawned(self, event: Spawned) -> list[Instruction]:
        status = WorkerStatus(
            event.worker_id,
            "starting",
            since=event.at,
            active_at=event.at,
            memory_limit=event.memory_limit,
            idle_s=event.idle_s,
        )
        self._store(status)
        # A request for a worker comes from a live queen, also before its channel is up.
        self.lease_renewed_at, self.fenced = max(self.lease_renewed_at, event.at), False
        steps: list[Instruction] = [Report(status.worker_id)]
        return [*steps, *self._stop(status, event.at, "the hive is stopping")] if self.draining else steps

    def _bound(self, status: WorkerStatus, event: Bound) -> list[Instruction]:
        if status.phase != "starting":
            return []
        self._store(replace(status, phase="loading", since=event.at))
        return [Report(status.worker_id)]

    def _heard(self, status: WorkerStatus, event: Reported | HealthCheckAnswered) -> list[Instruction]:
        if isinstance(event, HealthCheckAnswered):
            status = replace(status, checking=False, misses=0, check_at=self._next_check(event))
        self._store(status)
        if status.phase not in ALIVE:
            return []
        if event.state in (WorkerState.DRAINING, WorkerState.STOPPING):
            self._store(_stopping(status, event.at, "it was told to stop by another program"))
            return [Report(status.worker_id)]
        if not event.state.serves:
            return []
        before = status
        total = max(event.slots_total, 0)
        available = min(max(event.slots_available, 0), total)
        used = available < total or status.slots_available < status.slots_total or status.phase != "serving"
        status = replace(
            status,
            phase="serving",
            since=status.since if status.phase == "serving" else event.at,
            check_at=status.check_at if status.phase == "serving" else event.at + self.policy.health_interval_s,
            state=WorkerState.IDLE if available else WorkerState.BUSY,
            slots_total=total,
            slots_available=available,
            active_at=event.at if used else status.active_at,
        )
        self._store(status)
        if isinstance(event, HealthCheckAnswered) and available < total and event.stalled_s >= self.policy.stall_s:
            reason = f"a request has had no token for {event.stalled_s:.0f} s"
            return self._kill(status, event.at, reason, ErrorCode.WORKER_STALLED, replacement=True)
        if isinstance(event, HealthCheckAnswered) and 0 < status.memory_limit < event.memory_bytes:
            reason = f"it holds {event.memory_bytes // _MIB} MB, which is more than {status.memory_limit // _MIB} MB"
            return self._kill(status, event.at, reason, ErrorCode.WORKER_CRASHED)
        shown = ("state", "slots_total", "slots_available")
        return [Report(status.worker_id)] if any(getattr(status, n) != getattr(before, n) for n in shown) else []

    def _next_check(self, event: HealthCheckAnswered) -> float:
        """Return when to check again: in time to see that a slot without tokens has stalled."""
        if event.stalled_s <= 0.0 or event.slots_available == event.slots_total:
            return event.at + self.policy.health_interval_s
        left = max(self.policy.stall_s - event.stalled_s, 0.5)
        return event.at + min(self.policy.health_interval_s, left)

    def _missed(self, status: WorkerStatus, event: HealthCheckMissed) -> list[Instruction]:
        misses = status.misses + 1
        status = replace(status, checking=False, misses=misses, check_at=event.at + self.policy.health_interval_s)
        self._store(status)
        if status.phase != "serving" or misses < self.policy.misses_allowed:
            return []
        reason = f"{misses} health checks in a row went unanswered, the last because {event.reason}"
        return self._kill(status, event.at, reason, ErrorCode.WORKER_CRASHED)

    def _model_changed(self, status: WorkerStatus, event: ModelChanged) -> list[Instruction]:
        """Replace the worker: at once where its answers would come from mixed weights, else after they are done."""
        if status.phase == "stopping":
            return []
        if event.overwritten:
            reason = "the file of its model was changed while it was in use"
            return self._kill(status, event.at, reason, None, replacement=True)
        return self._stop(status, event.at, "another file took the place of its model's", replacement=True)

    def _stop(
        self,
        status: WorkerStatus,
        at: float,
        reason: str,
        *,
        unused: bool = False,
        replacement: bool = False,
        drain_s: float | None = None,
    ) -> list[Instruction]:
        if status.phase == "stopping":
            return []
        stopping = replace(_stopping(status, at, reason), replace=replacement and not self.draining, drain_s=drain_s)
        self._store(stopping)
        return [Report(status.worker_id), Stop(status.worker_id, reason, unused, drain_s)]

    def _kill(
        self, status: WorkerStatus, at: float, reason: str, code: ErrorCode | None, *, replacement: bool = False
    ) -> list[Instruction]:
        if status.killed:
            return []
        code = status.code or code
        reported: list[Instruction] = [] if status.phase == "stopping" else [Report(status.worker_id)]
        status = replace(
            _stopping(status, at, reason),
            killed=True,
            code=code,
            replace=(replacement or status.replace) and not self.draining,
        )
        self._store(status)
        return [*reported, Kill(status.worker_id, reason, code)]

    def _exited(self, status: WorkerStatus, event: Exited) -> list[Instruction]:
        del self.workers[status.worker_id]
        if status.phase == "stopping":
            steps: list[Instruction] = [RemoveWorker(status.worker_id, status.reason, status.code)]
            return [Replace(status.worker_id), *steps] if status.replace and not self.draining else steps
        how = f"by signal {-event.exit_code}" if event.exit_code < 0 else f"with exit code {event.exit_code}"
        doing = {"starting": "before its port was bound", "loading": "while loading its model"}.get(status.phase, "")
        code = ErrorCode.WORKER_CRASHED if status.phase == "serving" else ErrorCode.WORKER_START_FAILED
        reason = f"its process ended {how} {doing}".rstrip() + (f": {event.cause}" if event.cause else "")
        return [RemoveWorker(status.worker_id, reason, code)]

    def _tick(self, at: float) -> list[Instruction]:
        steps = [step for status in self._all() for step in self._tick_worker(status, at)]
        lost_s = at - self.lease_renewed_at
        if lost_s < self.policy.fence_s or self.fenced or self.draining:
            return steps
        reason = f"no queen has been connected for {lost_s:.0f} s"
        if self.policy.on_queen_lost == "exit":
            self.fenced = True
            return [*steps, ShutDownHive(reason)]
        # Only once: a queen that returns lifts the fence.
        self.fenced = True
        return [*steps, *(step for status in self._all() for step in self._stop(status, at, reason))]

    def _tick_worker(self, status: WorkerStatus, at: float) -> list[Instruction]:
        policy = self.policy
        passed = at - status.since
        limit_s = policy.graceful_s if status.drain_s is None else status.drain_s + _CANCEL_S
        if status.phase == "stopping" and passed >= limit_s:
            return self._kill(status, at, f"{status.reason}; it did not end within {limit_s:.0f} s", status.code)
        if status.phase == "starting" and passed >= policy.bind_s:
            reason = f"its port was not bound within {policy.bind_s:.0f} s"
            return self._kill(status, at, reason, ErrorCode.WORKER_START_FAILED)
        if status.phase == "loading" and passed >= policy.loading_s:
            reason = f"its model was not loaded within {policy.loading_s:.0f} s"
            return self._kill(status, at, reason, ErrorCode.LOADING_TIMEOUT)
        if status.unused and status.idle_s is not None and at - status.active_at >= status.idle_s:
            return self._stop(status, at, f"idle for {status.idle_s:g} s", unused=True)
        if status.phase == "serving" and not status.checking and at >= status.check_at:
            self._store(replace(status, checking=True))
            return [Check(status.worker_id)]
        return []


def _stopping(status: WorkerStatus, at: float, reason: str) -> WorkerStatus:
    """Return the status as stopping; the time until the kill counts from the first request to stop."""
    since = status.since if status.phase == "stopping" else at
    return replace(status, phase="stopping", since=since, state=WorkerState.STOPPING, reason=reason, slots_available=0)
