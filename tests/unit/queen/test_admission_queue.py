"""Who is admitted, and who gets the next slot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.contracts.errors import ErrorCode
from rbee.queen.scheduling.admission_queue import AdmissionQueue, QueueLoad, SlotKind, check_capacity


@pytest.mark.parametrize(
    ("load", "code"),
    [
        (QueueLoad(tasks=9, of_client=4, draining=False), None),
        (QueueLoad(tasks=10, of_client=0, draining=False), ErrorCode.QUEUE_FULL),
        (QueueLoad(tasks=9, of_client=5, draining=False), ErrorCode.QUEUE_FULL),
        (QueueLoad(tasks=0, of_client=0, draining=True), ErrorCode.DRAINING),
    ],
)
def test_the_queue_is_bounded(load: QueueLoad, code: ErrorCode | None) -> None:
    """One task too many, in all or of one client, is refused with its reason, and none while the queen ends."""
    error = check_capacity(load, max_tasks=10, max_tasks_per_client=5)

    assert (error.code if error else None) is code


M, N = SlotKind("m"), SlotKind("n")


def test_requests_of_one_client_keep_their_order() -> None:
    """Requests of one client and one priority keep the order in which they came."""
    queue = AdmissionQueue()
    entries = [queue.join(M, "a", 0) for _ in range(4)]

    assert queue.order(M) == entries


def test_a_higher_priority_comes_first() -> None:
    """Priority is stronger than arrival."""
    queue = AdmissionQueue()
    usual, urgent, idle = queue.join(M, "a", 0), queue.join(M, "a", 5), queue.join(M, "a", -5)

    assert queue.order(M) == [urgent, usual, idle]


def test_one_client_with_many_requests_does_not_hold_up_another() -> None:
    """Clients take turns, however many requests each has brought."""
    queue = AdmissionQueue()
    many = [queue.join(M, "many", 0) for _ in range(3)]
    few = queue.join(M, "few", 0)

    assert queue.order(M) == [many[0], few, many[1], many[2]]


def test_clients_take_turns_while_slots_come_one_by_one() -> None:
    """Who has just had a turn waits for who has had none, also where nobody ever runs at the same time."""
    queue = AdmissionQueue()
    many = [queue.join(M, "many", 0) for _ in range(3)]
    few = [queue.join(M, "few", 0) for _ in range(2)]
    went = []
    while len(queue):
        went.append(queue.order(M)[0])
        queue.leave(went[-1])

    assert went == [many[0], few[0], many[1], few[1], many[2]]


def test_an_absence_earns_no_slots() -> None:
    """A client who comes late starts where the others are, and one who gives up in the middle moves nobody."""
    queue = AdmissionQueue()
    many = [queue.join(M, "many", 0) for _ in range(4)]
    queue.leave(many[3])
    queue.leave(many[0])
    queue.leave(many[1])
    late = [queue.join(M, "late", 0) for _ in range(2)]

    assert queue.order(M) == [many[2], late[0], late[1]]


def test_kinds_of_slots_do_not_block_each_other() -> None:
    """Each kind of slot has a queue of its own, and an empty one is removed."""
    queue = AdmissionQueue()
    one, other = queue.join(M, "a", 0), queue.join(N, "a", 0)

    assert (queue.order(M), queue.order(N)) == ([one], [other])
    queue.leave(one)
    assert queue.order(M) == []
    assert len(queue) == 1


def test_an_entry_is_told_when_it_becomes_the_first() -> None:
    """Each entry knows its position, and is woken when nobody is ahead any more, and only then."""
    queue = AdmissionQueue()
    first, second = queue.join(M, "a", 0), queue.join(M, "a", 0)
    woken: list[int] = []
    second.on_first = lambda: woken.append(second.number)

    assert (first.position, second.position, second.length) == (1, 2, 2)
    third = queue.join(M, "a", 0)
    assert woken == []
    queue.leave(first)
    assert woken == [second.number]
    assert (second.position, third.position, third.length) == (1, 2, 2)
    queue.leave(third)
    assert woken == [second.number]


def test_a_more_urgent_request_moves_the_first_one_back() -> None:
    """Who was first is woken once more when it is first again."""
    queue = AdmissionQueue()
    woken: list[str] = []
    with queue.waiting(M, "a", 0) as usual:
        usual.on_first = lambda: woken.append("usual")
        with queue.waiting(M, "a", 1):
            assert usual.position == 2
        assert usual.position == 1

    assert woken == ["usual"]
    assert len(queue) == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1, 1)), max_size=30))
def test_the_more_urgent_come_first_and_each_client_keeps_its_order(arrivals: list[tuple[str, int]]) -> None:
    """Whoever arrives, no entry is lost, and none comes before a more urgent one or an equal one of its client."""
    queue = AdmissionQueue()
    entries = [queue.join(M, client, priority) for client, priority in arrivals]

    order = queue.order(M)

    assert sorted(entry.number for entry in order) == [entry.number for entry in entries]
    assert [entry.priority for entry in order] == sorted((entry.priority for entry in order), reverse=True)
    for client, priority in set(arrivals):
        own = [entry.number for entry in order if (entry.client, entry.priority) == (client, priority)]
        assert own == sorted(own)


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_a_clients_kth_request_never_comes_after_anothers_next(arrivals: list[str]) -> None:
    """Of equal urgency, everybody's first request comes before anybody's second, and so on."""
    queue = AdmissionQueue()
    for client in arrivals:
        queue.join(M, client, 0)

    seen: dict[str, int] = {}
    rounds = []
    for entry in queue.order(M):
        seen[entry.client] = seen.get(entry.client, 0) + 1
        rounds.append(seen[entry.client])

    assert rounds == sorted(rounds)
