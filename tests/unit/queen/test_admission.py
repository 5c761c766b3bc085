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


def test_clients_take_turns_while_slots_come_one_by_one() -> None:
    """Who has just had a turn waits for who has had none, also where nobody ever runs at the same time."""
    line = Line()
    many = [line.join("m", "many", 0) for _ in range(3)]
    few = [line.join("m", "few", 0) for _ in range(2)]
    went = []
    while len(line):
        went.append(line.order("m")[0])
        line.leave(went[-1])

    assert went == [many[0], few[0], many[1], few[1], many[2]]


def test_nobody_is_owed_turns_for_having_been_away() -> None:
    """A client who comes late starts where the others are, and one who gives up in mid-line moves nobody."""
    line = Line()
    many = [line.join("m", "many", 0) for _ in range(4)]
    line.leave(many[3])
    line.leave(many[0])
    line.leave(many[1])
    late = [line.join("m", "late", 0) for _ in range(2)]

    assert line.order("m") == [many[2], late[0], late[1]]


def test_who_waits_for_something_else_is_not_in_the_way() -> None:
    """Each kind of slot has a line of its own, and an empty one is forgotten."""
    line = Line()
    one, other = line.join("m", "a", 0), line.join("n", "a", 0)

    assert (line.order("m"), line.order("n")) == ([one], [other])
    line.leave(one)
    assert line.order("m") == []
    assert len(line) == 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1, 1)), max_size=30))
def test_the_more_urgent_come_first_and_each_client_keeps_its_order(arrivals: list[tuple[str, int]]) -> None:
    """Whoever arrives, no ticket is lost, and none comes before a more urgent one or an equal one of its client."""
    line = Line()
    tickets = [line.join("m", client, priority) for client, priority in arrivals]

    order = line.order("m")

    assert sorted(ticket.number for ticket in order) == [ticket.number for ticket in tickets]
    assert [ticket.priority for ticket in order] == sorted((ticket.priority for ticket in order), reverse=True)
    for client, priority in set(arrivals):
        own = [ticket.number for ticket in order if (ticket.client, ticket.priority) == (client, priority)]
        assert own == sorted(own)


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_a_clients_kth_request_never_comes_after_anothers_next(arrivals: list[str]) -> None:
    """Of equal urgency, everybody's first request comes before anybody's second, and so on."""
    line = Line()
    for client in arrivals:
        line.join("m", client, 0)

    seen: dict[str, int] = {}
    turns = []
    for ticket in line.order("m"):
        seen[ticket.client] = seen.get(ticket.client, 0) + 1
        turns.append(seen[ticket.client])

    assert turns == sorted(turns)
