"""How often one kind of line may be logged."""

from __future__ import annotations

from rbee.observe.throttle import LogThrottle


def test_so_many_lines_are_admitted_in_an_interval_and_the_others_counted() -> None:
    """Ten thousand refusals are ten lines, and one that tells of the rest once the interval is over."""
    now = 100.0
    throttle = LogThrottle(10, 10.0, clock=lambda: now)

    assert sum(throttle.admit() for _ in range(10_000)) == 10
    assert throttle.take_left_out() == 0

    now = 110.0
    assert throttle.take_left_out() == 9_990
    assert throttle.take_left_out() == 0
    assert throttle.admit()
