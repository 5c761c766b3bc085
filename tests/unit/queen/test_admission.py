"""Who may come in, and whose turn it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.contracts.errors import ErrorCode
from rbee.queen.admission import Line, Load, refusal


@pytest.mark.parametrize(
    ("load", "code"),
    [
        (Load(tasks=9, of_client=4, draining=False), None),
        (Load(tasks=10, of_client=0, draining=False), ErrorCode.QUEUE_FULL),
        (Load(tasks=9, of_client=5, draining=False), ErrorCode.QUEUE_FULL),
        (Load(tasks=0, of_client=0, draining=True), ErrorCode.DRAINING),
    ],
)
def test_the_queue_is_bounded(load: Load, code: ErrorCode | None) -> None:
    """One task too many, in all or of one client, is refused with its reason, and none while the queen ends."""
    error = refusal(load, max_tasks=10, max_tasks_per_client=5)

    assert (error.code if error else None) is code


def test_who_comes_first_is_first_among_equals() -> None:
    """Requests of one client and one priority keep the order in which they came."""
    line = Line()
    tickets = [line.join("model", "a", 0) for _ in range(4)]

    assert line.order("model") == tickets


def test_a_higher_priority_comes_first() -> None:
    """Priority is stronger than arrival."""
    line = Line()
    usual, urgent, idle = line.join("m", "a", 0), line.join("m", "a", 5), line.join("m", "a", -5)

    assert line.order("m") == [urgent, usual, idle]


def test_one_client_with_many_requests_does_not_hold_up_another() -> None:
    """Clients take turns, however many requests each has brought."""
    line = Line()
    many = [line.join("m", "many", 0) for _ in range(3)]
    few = line.join("m", "few", 0)

    assert line.order("m") == [many[0], few, many[1], many[2]]


def test_what_runs_counts_too() -> None:
    """Who has slots already waits for who has none."""
    line = Line()
    line.began("many")
    first, other = line.join("m", "many", 0), line.join("m", "few", 0)

    assert line.order("m") == [other, first]
    line.ended("many")
    assert line.order("m") == [first, other]


def test_who_waits_for_something_else_is_not_in_the_way() -> None:
    """Each kind of slot has a line of its own, and an empty one is forgotten."""
    line = Line()
    one, other = line.join("m", "a", 0), line.join("n", "a", 0)

    assert (line.order("m"), line.order("n")) == ([one], [other])
    line.leave(one)
    assert line.kinds() == ["n"]
    assert len(line) == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1, 1)), max_size=30))
def test_nobody_is_overtaken_by_a_less_entitled_one(arrivals: list[tuple[str, int]]) -> None:
    """Of one client the earlier comes first; a client's k-th request never comes after another's k+1st."""
    line = Line()
    for client, priority in arrivals:
        line.join("m", client, priority)

    order = line.order("m")

    assert len(order) == len(arrivals)
    assert [ticket.priority for ticket in order] == sorted((ticket.priority for ticket in order), reverse=True)
    for priority in (-1, 0, 1):
        seen: dict[str, int] = {}
        ranks = []
        for ticket in order:
            if ticket.priority == priority:
                ranks.append(seen.get(ticket.client, 0))
                seen[ticket.client] = ranks[-1] + 1
        assert ranks == sorted(ranks)
