"""Which devices are yielded to other programs, for how long, whatever the clocks do."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.contracts.devices import Backend, YieldedDevice
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.hive.supervision.yielding import Moment, YieldLedger
from rbee.hive.yields import Yields

GPU, OTHER_GPU = (Backend.CUDA, 0), (Backend.CUDA, 1)
NOON = 1_767_225_600.0
HOUR = 3600.0


def at(steady: float, *, wall: float | None = None) -> Moment:
    """Give a moment *steady* seconds after the start, by a clock that shows *wall*, or was not touched."""
    return Moment(NOON + steady if wall is None else wall, 100.0 + steady)


def yielded(ledger: YieldLedger, now: Moment) -> set[tuple[Backend, int]]:
    """Give what is yielded now."""
    current = ledger.at(now)
    current.check_invariants(now)
    return set(current.yields)


def test_a_yield_ends_with_its_time() -> None:
    """A device is yielded for as long as was asked, and without a time until it is resumed."""
    ledger = YieldLedger().with_yielded([GPU], at(0), HOUR).with_yielded([OTHER_GPU], at(0), None)

    assert yielded(ledger, at(HOUR - 1)) == {GPU, OTHER_GPU}
    assert yielded(ledger, at(HOUR)) == {OTHER_GPU}
    assert yielded(ledger.without([OTHER_GPU]), at(1)) == {GPU}


def test_the_latest_command_decides() -> None:
    """Who yields a device that is yielded already changes its end, to an earlier or a later one."""
    ledger = YieldLedger().with_yielded([GPU], at(0), HOUR)

    assert yielded(ledger.with_yielded([GPU], at(10), 60), at(70)) == set()
    assert yielded(ledger.with_yielded([GPU], at(10), None), at(9 * HOUR)) == {GPU}


def test_a_clock_that_is_set_back_does_not_extend_a_yield() -> None:
    """Two hours stay two hours where the machine's clock is set back by a day, and the end that is told moves along."""
    ledger = YieldLedger().with_yielded([GPU], at(0), 2 * HOUR)
    back = ledger.at(at(HOUR, wall=NOON - 23 * HOUR))

    assert back.listed()[0].until_unix == NOON - 22 * HOUR
    assert yielded(back, at(2 * HOUR - 1, wall=NOON - 22 * HOUR - 1)) == {GPU}
    assert yielded(back, at(2 * HOUR, wall=NOON - 22 * HOUR)) == set()


def test_a_clock_that_is_set_forward_ends_a_yield() -> None:
    """The end is a time of the machine's clock: it has come when that shows it, as after a sleep of the machine."""
    ledger = YieldLedger().with_yielded([GPU], at(0), 2 * HOUR)

    assert yielded(ledger, at(60, wall=NOON + HOUR)) == {GPU}
    assert yielded(ledger, at(60, wall=NOON + 2 * HOUR)) == set()


def test_a_clock_that_is_kept_right_changes_nothing() -> None:
    """Milliseconds by which a clock is corrected are no change that queens need to hear of."""
    ledger = YieldLedger().with_yielded([GPU], at(0), HOUR)

    assert ledger.at(at(10, wall=NOON + 9.5)) is ledger


def test_a_restart_keeps_what_is_left() -> None:
    """An end that is stored stays that end in the next life of the hive, whose steady clock begins anew."""
    stored = YieldLedger().with_yielded([GPU], at(0), HOUR).with_yielded([OTHER_GPU], at(0), None).listed()
    later = YieldLedger.restore(stored, Moment(NOON + HOUR / 2, 5.0))

    assert later.listed() == stored
    assert yielded(later, Moment(NOON + HOUR - 1, 5.0 + HOUR / 2 - 1)) == {GPU, OTHER_GPU}
    assert yielded(later, Moment(NOON + HOUR, 5.0 + HOUR / 2)) == {OTHER_GPU}
    assert yielded(YieldLedger.restore(stored, Moment(NOON + 2 * HOUR, 5.0)), Moment(NOON + 2 * HOUR, 5.0)) == {
        OTHER_GPU
    }


def test_a_clock_that_was_set_back_before_a_restart_yields_no_longer_than_asked() -> None:
    """With a clock of last year the next life of a hive yields a device for what was asked, not for a year more."""
    stored = YieldLedger().with_yielded([GPU], at(0), HOUR).listed()
    year = 365 * 24 * HOUR

    later = YieldLedger.restore(stored, Moment(NOON - year, 5.0))

    assert later.listed()[0].until_unix == NOON - year + HOUR
    assert yielded(later, Moment(NOON - year + HOUR, 5.0 + HOUR)) == set()


@given(st.lists(st.tuples(st.floats(0, 900), st.floats(-1e6, 1e6)), max_size=30), st.floats(1, 7200))
def test_no_clock_makes_a_yield_longer(steps: list[tuple[float, float]], for_s: float) -> None:
    """However the clock jumps, a device is back after the time that was asked for, by a steady clock."""
    ledger = YieldLedger().with_yielded([GPU], at(0), for_s)
    steady = offset = 0.0
    for passed, jump in steps:
        steady, offset = steady + passed, offset + jump
        now = at(steady, wall=NOON + steady + offset)
        ledger = ledger.at(now)
        ledger.check_invariants(now)
        assert not ledger.yields or steady < for_s


@dataclass
class Clocks:
    """Two clocks that a test moves."""

    wall: float = NOON
    steady: float = 100.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


def keep(path: Path, clocks: Clocks, told: list[list[YieldedDevice]] | None = None) -> Yields:
    """Open the yields of a hive."""
    return Yields(
        path,
        (told if told is not None else []).append,
        clock=lambda: clocks.steady,
        wall_clock=lambda: clocks.wall,
    )


def test_yields_survive_a_restart(tmp_path: Path) -> None:
    """What is yielded is stored before anybody is told, and read again by the next life of the hive."""
    path, clocks = tmp_path / "yielded.json", Clocks()
    told: list[list[YieldedDevice]] = []

    async def scenario() -> None:
        yields = keep(path, clocks, told)
        await yields.add([GPU], HOUR)
        clocks.pass_by(60)
        again = keep(path, clocks)
        assert again.listed() == yields.listed() == told[-1]
        assert again.barred()[GPU].details["until_unix"] == NOON + HOUR
        assert [each.device for each in await again.remove([GPU, OTHER_GPU])] == [0]
        assert keep(path, clocks).listed() == []

    asyncio.run(scenario())


def test_a_refusal_says_until_when(tmp_path: Path) -> None:
    """Who needs a yielded device is told so, until when, and when to come again."""
    clocks = Clocks(wall=1_767_225_600.0)

    async def scenario() -> RbeeError:
        yields = keep(tmp_path / "yielded.json", clocks)
        await yields.add([GPU], 2 * HOUR)
        return yields.barred()[GPU]

    error = asyncio.run(scenario())

    assert error.code is ErrorCode.DEVICE_YIELDED
    assert "cuda device 0 is yielded to another program until 2026-01-01 02:00 UTC" in error.message
    assert error.retry_after_s == 7200
    assert "hive resume" in error.hint


def test_nothing_changes_where_it_cannot_be_stored(tmp_path: Path) -> None:
    """A yield that would not survive a restart is refused, and nothing is yielded."""
    told: list[list[YieldedDevice]] = []

    async def scenario() -> Yields:
        yields = keep(tmp_path / "missing" / "yielded.json", Clocks(), told)
        with pytest.raises(RbeeError) as caught:
            await yields.add([GPU], None)
        assert caught.value.code is ErrorCode.PERMISSION_DENIED
        return yields

    assert asyncio.run(scenario()).listed() == []
    assert told == []


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"yielded": [{"backend": "abacus"}]})])
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, text: str) -> None:
    """A hive that cannot read what was yielded does not start: it would take what another program was promised."""
    path = tmp_path / "yielded.json"
    path.write_text(text)

    with pytest.raises(RbeeError) as caught:
        keep(path, Clocks())

    assert caught.value.code is ErrorCode.STATE_CORRUPT
    assert str(path) in caught.value.message
