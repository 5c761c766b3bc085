"""Decide what becomes of each worker: events in, instructions out; the daemon around it does the I/O.

Pure: time comes in as `at` (seconds of any steady clock), and nothing here waits, reads or writes.
Life of a worker: starting (process exists) -> loading (port bound) -> serving (idle or busy) -> stopping -> gone.
From every phase a worker may exit; a worker is forgotten when, and only when, its process has exited.

Invariants: a stopping worker has a time by which it is killed; no worker is told to stop twice;
a worker that was killed is not told anything any more; slots available never exceed slots in all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal

from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import WorkerState
from rbee.hive.supervision.events import (
    Answered,
    Bound,
    Drained,
    Event,
    Exited,
    Leased,
    Missed,
    Reported,
    Spawned,
    StopAsked,
    Tick,
)
from rbee.hive.supervision.instructions import (
    Check,
    Forget,
    Instruction,
    Kill,
    Leave,
    Replace,
    Report,
    Stop,
)

_MIB: Final = 1024 * 1024
Phase = Literal["starting", "loading", "serving", "stopping"]

# A worker that may be given requests, or may soon be.
ALIVE: Final[frozenset[Phase]] = frozenset({"starting", "loading", "serving"})


@dataclass(frozen=True, slots=True)
class Policy:
    """How long things may take, in seconds, and how many health checks may go unanswered."""

    bind_s: float = 30.0
    loading_s: float = 300.0
    health_interval_s: float = 30.0
    misses_allowed: int = 3
    idle_s: float = 300.0
    stall_s: float = 60.0
    graceful_s: float = 30.0
    fence_s: float = 60.0
    on_queen_lost: Literal["stop-workers", "exit"] = "stop-workers"


@dataclass(frozen=True, slots=True)
class Life:
    """One worker as supervision knows it; times in seconds of the caller's clock."""

    worker_id: str
    phase: Phase
    since: float
    state: WorkerState = WorkerState.LOADING
    slots_total: int = 0
    slots_available: int = 0
    most_bytes: int = 0
    active_at: float = 0.0
    check_at: float = 0.0
    checking: bool = False
    misses: int = 0
    killed: bool = False
    replace: bool = False
    reason: str = ""
    code: ErrorCode | None = None

    @property
    def unused(self) -> bool:
        """Tell whether no slot is in use."""
        return self.phase == "serving" and self.slots_available == self.slots_total


@dataclass(slots=True)
class Supervision:
    """All workers of one hive. `on` takes one event and gives the instructions that follow from it."""

    policy: Policy
    heard_at: float
    workers: dict[str, Life] = field(default_factory=dict)
    draining: bool = False
    fenced: bool = False

    def on(self, event: Event) -> list[Instruction]:
        """Take *event* in. Events about workers that are unknown (already gone) change nothing."""
        match event:
            case Spawned():
                return self._spawned(event)
            case Leased():
                self.heard_at, self.fenced = event.at, False
                return []
            case Drained():
                self.draining = True
                return [step for life in self._listed() for step in self._stop(life, event.at, event.reason)]
            case Tick():
                return self._tick(event.at)
            case _:
                life = self.workers.get(event.worker_id)
                return [] if life is None else self._on_worker(life, event)

    def _on_worker(
        self, life: Life, event: Bound | Reported | Answered | Missed | StopAsked | Exited
    ) -> list[Instruction]:
        match event:
            case Bound():
                return self._bound(life, event)
            case Reported() | Answered():
                return self._heard(life, event)
            case Missed():
                return self._missed(life, event)
            case StopAsked():
                return self._stop(life, event.at, event.reason)
            case Exited():
                return self._exited(life, event)

    def check_invariants(self) -> None:
        """Raise AssertionError if the state contradicts itself."""
        for worker_id, life in self.workers.items():
            assert life.worker_id == worker_id
            assert 0 <= life.slots_available <= life.slots_total
            assert not life.killed or life.phase == "stopping"
            assert life.phase != "stopping" or life.reason
            assert (life.phase == "serving") == life.state.serves
        assert not self.draining or all(life.phase == "stopping" for life in self.workers.values())

    def _listed(self) -> list[Life]:
        return list(self.workers.values())

    def _keep(self, life: Life) -> None:
        self.workers[life.worker_id] = life

    def _spawned(self, event: Spawned) -> list[Instruction]:
        life = Life(event.worker_id, "starting", since=event.at, active_at=event.at, most_bytes=event.most_bytes)
        self._keep(life)
        # Whoever asks for a worker is a sign of life from a queen, also before its channel is up.
        self.heard_at, self.fenced = max(self.heard_at, event.at), False
        steps: list[Instruction] = [Report(life.worker_id)]
        return [*steps, *self._stop(life, event.at, "the hive is stopping")] if self.draining else steps

    def _bound(self, life: Life, event: Bound) -> list[Instruction]:
        if life.phase != "starting":
            return []
        self._keep(replace(life, phase="loading", since=event.at))
        return [Report(life.worker_id)]

    def _heard(self, life: Life, event: Reported | Answered) -> list[Instruction]:
        if isinstance(event, Answered):
            life = replace(life, checking=False, misses=0, check_at=self._next_check(event))
        self._keep(life)
        if life.phase not in ALIVE:
            return []
        if event.state in (WorkerState.DRAINING, WorkerState.STOPPING):
            self._keep(_stopping(life, event.at, "it was told to stop by somebody else"))
            return [Report(life.worker_id)]
        if not event.state.serves:
            return []
        before = life
        total = max(event.slots_total, 0)
        available = min(max(event.slots_available, 0), total)
        used = available < total or life.slots_available < life.slots_total or life.phase != "serving"
        life = replace(
            life,
            phase="serving",
            since=life.since if life.phase == "serving" else event.at,
            check_at=life.check_at if life.phase == "serving" else event.at + self.policy.health_interval_s,
            state=WorkerState.IDLE if available else WorkerState.BUSY,
            slots_total=total,
            slots_available=available,
            active_at=event.at if used else life.active_at,
        )
        self._keep(life)
        if isinstance(event, Answered) and available < total and event.stalled_s >= self.policy.stall_s:
            reason = f"a request has had no token for {event.stalled_s:.0f} s"
            return self._kill(life, event.at, reason, ErrorCode.WORKER_STALLED, replacement=True)
        if isinstance(event, Answered) and 0 < life.most_bytes < event.memory_bytes:
            reason = f"it holds {event.memory_bytes // _MIB} MB, which is more than {life.most_bytes // _MIB} MB"
            return self._kill(life, event.at, reason, ErrorCode.WORKER_CRASHED)
        shown = ("state", "slots_total", "slots_available")
        return [Report(life.worker_id)] if any(getattr(life, n) != getattr(before, n) for n in shown) else []

    def _next_check(self, event: Answered) -> float:
        """Look again just when a slot that gives no token would count as stalled, if that comes first."""
        if event.stalled_s <= 0.0 or event.slots_available == event.slots_total:
            return event.at + self.policy.health_interval_s
        left = max(self.policy.stall_s - event.stalled_s, 0.5)
        return event.at + min(self.policy.health_interval_s, left)

    def _missed(self, life: Life, event: Missed) -> list[Instruction]:
        misses = life.misses + 1
        life = replace(life, checking=False, misses=misses, check_at=event.at + self.policy.health_interval_s)
        self._keep(life)
        if life.phase != "serving" or misses < self.policy.misses_allowed:
            return []
        reason = f"{misses} health checks in a row went unanswered, the last because {event.reason}"
        return self._kill(life, event.at, reason, ErrorCode.WORKER_CRASHED)

    def _stop(self, life: Life, at: float, reason: str, *, unused: bool = False) -> list[Instruction]:
        if life.phase == "stopping":
            return []
        self._keep(_stopping(life, at, reason))
        return [Report(life.worker_id), Stop(life.worker_id, reason, unused)]

    def _kill(
        self, life: Life, at: float, reason: str, code: ErrorCode | None, *, replacement: bool = False
    ) -> list[Instruction]:
        if life.killed:
            return []
        code = life.code or code
        reported: list[Instruction] = [] if life.phase == "stopping" else [Report(life.worker_id)]
        life = replace(_stopping(life, at, reason), killed=True, code=code, replace=replacement and not self.draining)
        self._keep(life)
        return [*reported, Kill(life.worker_id, reason, code)]

    def _exited(self, life: Life, event: Exited) -> list[Instruction]:
        del self.workers[life.worker_id]
        if life.phase == "stopping":
            steps: list[Instruction] = [Forget(life.worker_id, life.reason, life.code)]
            return [Replace(life.worker_id), *steps] if life.replace and not self.draining else steps
        how = f"by signal {-event.exit_code}" if event.exit_code < 0 else f"with exit code {event.exit_code}"
        doing = {"starting": "before its port was bound", "loading": "while loading its model"}.get(life.phase, "")
        code = ErrorCode.WORKER_CRASHED if life.phase == "serving" else ErrorCode.WORKER_START_FAILED
        return [Forget(life.worker_id, f"its process ended {how} {doing}".rstrip(), code)]

    def _tick(self, at: float) -> list[Instruction]:
        steps = [step for life in self._listed() for step in self._tick_worker(life, at)]
        lost_s = at - self.heard_at
        if lost_s < self.policy.fence_s or self.fenced or self.draining:
            return steps
        reason = f"no queen has been heard for {lost_s:.0f} s"
        if self.policy.on_queen_lost == "exit":
            self.fenced = True
            return [*steps, Leave(reason)]
        # Only once: a queen that comes back and spawns again lifts the fence by doing so.
        self.fenced = True
        return [*steps, *(step for life in self._listed() for step in self._stop(life, at, reason))]

    def _tick_worker(self, life: Life, at: float) -> list[Instruction]:
        policy = self.policy
        passed = at - life.since
        if life.phase == "stopping" and passed >= policy.graceful_s:
            return self._kill(life, at, f"{life.reason}; it did not end within {policy.graceful_s:.0f} s", life.code)
        if life.phase == "starting" and passed >= policy.bind_s:
            reason = f"its port was not bound within {policy.bind_s:.0f} s"
            return self._kill(life, at, reason, ErrorCode.WORKER_START_FAILED)
        if life.phase == "loading" and passed >= policy.loading_s:
            reason = f"its model was not loaded within {policy.loading_s:.0f} s"
            return self._kill(life, at, reason, ErrorCode.LOADING_TIMEOUT)
        if life.unused and at - life.active_at >= policy.idle_s:
            return self._stop(life, at, f"idle for {policy.idle_s:.0f} s", unused=True)
        if life.phase == "serving" and not life.checking and at >= life.check_at:
            self._keep(replace(life, checking=True))
            return [Check(life.worker_id)]
        return []


def _stopping(life: Life, at: float, reason: str) -> Life:
    """Turn to stopping; the time to be killed counts from the first wish that it stop."""
    since = life.since if life.phase == "stopping" else at
    return replace(life, phase="stopping", since=since, state=WorkerState.STOPPING, reason=reason, slots_available=0)
