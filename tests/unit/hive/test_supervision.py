"""What becomes of workers: given these events, exactly these instructions."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import WorkerState
from rbee.hive.supervision import (
    Bound,
    Check,
    Drained,
    Event,
    Exited,
    HealthCheckAnswered,
    HealthCheckMissed,
    Instruction,
    Kill,
    LeaseRenewed,
    ModelChanged,
    Policy,
    RemoveWorker,
    Replace,
    Report,
    Reported,
    ShutDownHive,
    Spawned,
    Stop,
    StopAsked,
    Supervision,
    Tick,
)

W = "worker-1"
POLICY = Policy()


def reported(at: float, available: int = 4, state: WorkerState = WorkerState.IDLE) -> Reported:
    return Reported(W, at, state, 4, available)


def answered(at: float, available: int = 4, stalled_s: float = 0.0) -> HealthCheckAnswered:
    return HealthCheckAnswered(W, at, WorkerState.IDLE if available else WorkerState.BUSY, 4, available, stalled_s)


def fed(*events: Event, policy: Policy = POLICY) -> tuple[Supervision, list[list[Instruction]]]:
    """Give the state after the events, and what each of them led to; the invariants hold after each."""
    state = Supervision(policy, lease_renewed_at=0.0)
    steps = []
    for event in events:
        steps.append(state.handle(event))
        state.check_invariants()
    return state, steps


def serving(
    *events: Event, policy: Policy = POLICY, idle_s: float | None = 300.0
) -> tuple[Supervision, list[list[Instruction]]]:
    """Like `fed`, after a worker came up at second 2; a queen is heard all along."""
    state, steps = fed(Spawned(W, 0, idle_s=idle_s), Bound(W, 1), reported(2), *events, policy=policy)
    return state, steps[3:]


def test_a_worker_comes_up() -> None:
    """Each step of a worker's way up is reported, and nothing else happens."""
    state, steps = fed(Spawned(W, 0), Bound(W, 1), Bound(W, 1.1), reported(2))

    assert steps == [[Report(W)], [Report(W)], [], [Report(W)]]
    assert state.workers[W].state is WorkerState.IDLE


@pytest.mark.parametrize(
    ("events", "at", "code"),
    [
        ([Spawned(W, 0)], 30.0, ErrorCode.WORKER_START_FAILED),
        ([Spawned(W, 0), Bound(W, 10)], 310.0, ErrorCode.LOADING_TIMEOUT),
    ],
)
def test_a_worker_that_does_not_come_up_is_killed(events: list[Event], at: float, code: ErrorCode) -> None:
    """A port not bound in 30 s and a model not loaded in 5 min end the worker, with a code of their own."""
    policy = Policy(fence_s=1e9)
    _, steps = fed(*events, Tick(at - 0.1), Tick(at), Tick(at + 0.5), Exited(W, at + 1, -9), policy=policy)

    before, strike, after, end = steps[-4:]
    assert before == after == []
    assert strike[0] == Report(W)
    assert isinstance(strike[1], Kill)
    assert strike[1].code is code
    assert end == [RemoveWorker(W, strike[1].reason, code)]


def test_slots_are_reported_as_they_change() -> None:
    """A worker is busy when no slot is free; a report that changes nothing is not passed on."""
    state, steps = serving(reported(3, available=1), reported(4, available=1), reported(5, 0, WorkerState.BUSY))

    assert steps == [[Report(W)], [], [Report(W)]]
    assert state.workers[W].state is WorkerState.BUSY


@pytest.mark.B45
def test_an_idle_worker_is_stopped() -> None:
    """A worker whose slots were all free for the idle time is told to stop, once; use starts the time anew."""
    _, steps = serving(reported(200, 3), reported(250, 4), LeaseRenewed(540), Tick(549), Tick(550), Tick(551))

    assert [step for step in steps[3] if not isinstance(step, Check)] == []
    assert steps[4] == [Report(W), Stop(W, "idle for 300 s", unused=True)]
    assert steps[5] == []


@pytest.mark.parametrize(("idle_s", "stops"), [(0.5, [True, True]), (60.0, [False, True]), (None, [False, False])])
def test_each_worker_has_an_idle_time_of_its_own(idle_s: float | None, stops: list[bool]) -> None:
    """An unused worker stays as long as it was started for, and for ever where that has no end."""
    _, steps = serving(Tick(30), LeaseRenewed(1e6), Tick(1e6), idle_s=idle_s)

    stopped = [any(isinstance(step, Stop) for step in each) for each in (steps[0], [*steps[0], *steps[2]])]
    assert stopped == stops


def test_a_worker_in_use_is_not_idle() -> None:
    """A single slot in use keeps a worker, however long."""
    _, steps = serving(reported(3, 3), LeaseRenewed(4000), Tick(4001))

    assert steps[-1] == [Check(W)]


@pytest.mark.B47
def test_three_misses_remove_a_worker() -> None:
    """Health is asked every 30 s; three misses in a row kill the worker, an answer in between forgives."""
    _, steps = serving(
        Tick(31.9),
        Tick(32),
        Tick(33),
        HealthCheckMissed(W, 34, "x"),
        HealthCheckMissed(W, 64, "x"),
        HealthCheckMissed(W, 94, "late"),
    )

    assert steps[:3] == [[], [Check(W)], []]
    assert steps[3:5] == [[], []]
    assert isinstance(steps[5][-1], Kill)
    assert "late" in steps[5][-1].reason
    assert steps[5][-1].code is ErrorCode.WORKER_CRASHED

    _, forgiven = serving(
        HealthCheckMissed(W, 34, "x"), HealthCheckMissed(W, 64, "x"), answered(90), HealthCheckMissed(W, 124, "x")
    )
    assert forgiven[-1] == []


def test_a_loading_worker_is_not_asked() -> None:
    """A worker that is loading has its own limit and no health checks."""
    _, steps = fed(Spawned(W, 0), Bound(W, 1), Tick(50))

    assert steps[-1] == []


def test_a_stalled_worker_is_replaced() -> None:
    """A busy slot without a token for 60 s kills the worker, which is then replaced."""
    state, steps = serving(reported(10, 3), answered(32, 3, 22.0), answered(70, 3, 60.0), Exited(W, 71, -9))

    assert state.workers == {}
    assert isinstance(steps[2][-1], Kill)
    assert steps[2][-1].code is ErrorCode.WORKER_STALLED
    assert steps[3] == [Replace(W), RemoveWorker(W, steps[2][-1].reason, ErrorCode.WORKER_STALLED)]


def test_a_worker_whose_model_was_overwritten_is_replaced_at_once() -> None:
    """Mixed weights answer nothing: the worker is killed, replaced, and nobody is blamed for a crash."""
    state, steps = serving(reported(10, 3), ModelChanged(W, 11, True), ModelChanged(W, 12, True), Exited(W, 13, -9))

    assert state.workers == {}
    (kill,) = [step for step in steps[1] if isinstance(step, Kill)]
    assert (kill.code, "changed" in kill.reason) == (None, True)
    assert steps[2] == []
    assert steps[3] == [Replace(W), RemoveWorker(W, kill.reason, None)]


def test_a_worker_whose_model_was_exchanged_finishes_first() -> None:
    """A file that took the place of the model's leaves the worker whole: it ends its requests and is replaced."""
    _, steps = serving(reported(10, 3), ModelChanged(W, 11, False), Tick(40), Tick(41), Exited(W, 42, -9))

    (stop,) = [step for step in steps[1] if isinstance(step, Stop)]
    assert "another file" in stop.reason
    assert isinstance(steps[3][-1], Kill)
    assert steps[4][0] == Replace(W)


@pytest.mark.parametrize(
    ("memory_limit", "held", "ended"), [(1000, 1001, True), (1000, 1000, False), (0, 10**12, False)]
)
def test_a_worker_that_runs_away_with_memory_is_killed(memory_limit: int, held: int, ended: bool) -> None:
    """A health check that tells of more memory than the worker may hold ends it; without a limit it may hold any."""
    supervision = Supervision(POLICY, lease_renewed_at=0)
    supervision.handle(Spawned(W, 0, memory_limit))
    supervision.handle(Bound(W, 1))
    supervision.handle(reported(2))

    steps = supervision.handle(HealthCheckAnswered(W, 3, WorkerState.IDLE, 4, 4, 0.0, held))

    kills = [step for step in steps if isinstance(step, Kill)]
    assert bool(kills) is ended
    assert all(kill.code is ErrorCode.WORKER_CRASHED and "it holds" in kill.reason for kill in kills)
    supervision.check_invariants()


def test_a_slot_that_is_about_to_stall_is_looked_at_in_time() -> None:
    """A slot that gives no token is asked about again when its minute is over, not half a minute later."""
    _, steps = serving(reported(10, 3), answered(32, 3, 45.0), Tick(46.9), Tick(47))

    assert steps[2:] == [[], [Check(W)]]


def test_old_silence_of_free_slots_is_no_stall() -> None:
    """A worker without a slot in use never counts as stalled."""
    _, steps = serving(answered(32, 4, 400.0))

    assert steps[0] == []


def test_a_stop_is_told_once_and_ends_in_a_kill() -> None:
    """A worker that is asked to stop is told once; 30 s later it is killed, and nobody calls that a crash."""
    _, steps = serving(StopAsked(W, 10, "asked"), StopAsked(W, 11, "again"), Tick(39), Tick(40), Exited(W, 41, -9))

    assert steps[0] == [Report(W), Stop(W, "asked")]
    assert steps[1] == steps[2] == []
    assert steps[3] == [Kill(W, "asked; it did not end within 30 s", None)]
    assert steps[4] == [RemoveWorker(W, "asked; it did not end within 30 s", None)]


def test_a_stop_may_have_a_time_of_its_own() -> None:
    """Who stops a worker may say how long its requests may take; the kill comes when it could have cancelled them."""
    _, steps = serving(StopAsked(W, 10, "asked", 90), Tick(45), Tick(109.9), Tick(110))

    assert steps[0] == [Report(W), Stop(W, "asked", drain_s=90)]
    assert steps[1] == steps[2] == []
    assert steps[3] == [Kill(W, "asked; it did not end within 100 s", None)]


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([Spawned(W, 0)], ErrorCode.WORKER_START_FAILED),
        ([Spawned(W, 0), Bound(W, 1)], ErrorCode.WORKER_START_FAILED),
        ([Spawned(W, 0), Bound(W, 1), reported(2)], ErrorCode.WORKER_CRASHED),
    ],
)
def test_an_exit_nobody_asked_for_is_an_error(events: list[Event], code: ErrorCode) -> None:
    """A process that ends by itself is forgotten with a code, in whatever phase it was."""
    state, steps = fed(*events, Exited(W, 3, -11))

    (forgotten,) = steps[-1]
    assert isinstance(forgotten, RemoveWorker)
    assert forgotten.code is code
    assert "signal 11" in forgotten.reason
    assert state.workers == {}


def test_what_the_kernel_ended_a_worker_for_is_its_reason() -> None:
    """A worker that the kernel ended for its memory says so, not only by which signal."""
    _, steps = serving(Exited(W, 3, -9, "it needed more than 3 MB"))

    assert steps[-1] == [
        RemoveWorker(W, "its process ended by signal 9: it needed more than 3 MB", ErrorCode.WORKER_CRASHED)
    ]


def test_a_worker_stopped_by_somebody_else_is_no_crash() -> None:
    """A worker that says it drains is let go, and killed if that takes too long."""
    _, steps = serving(reported(10, 4, WorkerState.DRAINING), Tick(41), Exited(W, 42, -9))

    assert steps[0] == [Report(W)]
    assert isinstance(steps[1][0], Kill)
    assert isinstance(steps[2][0], RemoveWorker)
    assert steps[2][0].code is None


@pytest.mark.B67
def test_without_a_queen_the_workers_are_stopped() -> None:
    """After 60 s without a queen every worker is stopped, once; the hive itself stays."""
    _, steps = serving(LeaseRenewed(5), Tick(64), Tick(65), Tick(66))

    assert steps[1] == [Check(W)]
    assert steps[2] == [Report(W), Stop(W, "no queen has been connected for 60 s")]
    assert steps[3] == []


@pytest.mark.B67
def test_a_queen_that_returns_in_time_finds_her_workers() -> None:
    """A lease within the minute starts it anew."""
    state, steps = serving(LeaseRenewed(5), LeaseRenewed(64), Tick(65), Tick(100))

    assert not any(isinstance(step, Stop) for step in [*steps[2], *steps[3]])
    assert W in state.workers


@pytest.mark.parametrize(("choice", "leaves"), [("exit", True), ("stop-workers", False)])
def test_what_to_do_without_a_queen_is_a_setting(choice: Literal["exit", "stop-workers"], leaves: bool) -> None:
    """With `exit` the hive leaves, and says so once; a spawn counts as hearing a queen."""
    policy = Policy(on_queen_lost=choice)
    _, steps = fed(Tick(59), Spawned(W, 59.5), Tick(119), Tick(120), Tick(121), policy=policy)

    assert [any(isinstance(step, ShutDownHive) for step in each) for each in steps] == [False] * 3 + [leaves, False]


@pytest.mark.B49
def test_the_end_of_the_hive_stops_everybody_and_lets_nobody_in() -> None:
    """At the end all workers are stopped, and one that was just being started is stopped too."""
    state, steps = fed(Spawned("a", 0), Spawned("b", 0), Bound("b", 1), Drained(2), Spawned("c", 3))

    assert [step.worker_id for step in steps[3] if isinstance(step, Stop)] == ["a", "b"]
    assert [step.worker_id for step in steps[4] if isinstance(step, Stop)] == ["c"]
    assert set(state.workers) == {"a", "b", "c"}


def test_a_stalled_worker_is_not_replaced_at_the_end() -> None:
    """A hive that is ending starts nothing, not even a replacement."""
    _, steps = serving(answered(32, 3, 60.0), Drained(33), Exited(W, 34, -9))

    assert [type(step) for step in steps[2]] == [RemoveWorker]


def test_news_of_a_worker_that_is_gone_changes_nothing() -> None:
    """Late events about a worker that was forgotten are ignored."""
    _, steps = serving(
        Exited(W, 10, 0), Exited(W, 11, 0), answered(12), HealthCheckMissed(W, 13, "x"), StopAsked(W, 14, "x")
    )

    assert steps[1:] == [[], [], [], []]


def _events() -> st.SearchStrategy[list[Event]]:
    name = st.sampled_from(["a", "b"])
    count = st.integers(-1, 5)
    state = st.sampled_from(list(WorkerState))
    kinds: list[st.SearchStrategy[Event]] = [
        st.builds(Spawned, name, st.just(0.0), st.just(0), st.sampled_from([None, 60.0])),
        st.builds(Bound, name, st.just(0.0)),
        st.builds(Reported, name, st.just(0.0), state, count, count),
        st.builds(HealthCheckAnswered, name, st.just(0.0), state, count, count, st.sampled_from([0.0, 59.0, 61.0])),
        st.builds(HealthCheckMissed, name, st.just(0.0), st.just("x")),
        st.builds(StopAsked, name, st.just(0.0), st.just("asked")),
        st.builds(Exited, name, st.just(0.0), st.sampled_from([0, 1, -9])),
        st.builds(LeaseRenewed, st.just(0.0)),
        st.builds(Drained, st.just(0.0)),
        st.builds(Tick, st.just(0.0)),
    ]
    return st.lists(st.one_of(kinds), max_size=40)


@given(_events(), st.lists(st.floats(0, 120), min_size=40, max_size=40))
def test_no_order_of_events_breaks_the_invariants(events: list[Event], pauses: list[float]) -> None:
    """Whatever happens in whatever order, invariants hold, and each worker is stopped and forgotten once at most."""
    state = Supervision(POLICY, lease_renewed_at=0.0)
    now = 0.0
    told: set[str] = set()
    for event, pause in zip(events, pauses, strict=False):
        now += pause
        if isinstance(event, Spawned):
            if event.worker_id in state.workers:
                continue
            told.discard(event.worker_id)
        known = set(state.workers)
        for step in state.handle(replace(event, at=now)):
            match step:
                case Stop(worker_id):
                    assert worker_id not in told
                    told.add(worker_id)
                case RemoveWorker(worker_id):
                    assert isinstance(event, Exited)
                    assert worker_id in known
                    assert worker_id not in state.workers
        state.check_invariants()
