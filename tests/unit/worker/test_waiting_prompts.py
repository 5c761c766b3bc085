"""Which of the prompts that wait for a slot is next."""

from __future__ import annotations

from rbee.worker.generation import Generation
from rbee.worker.text.sampling import SamplerChain
from rbee.worker.waiting_prompts import WaitingPrompts


def generation(name: str) -> Generation:
    return Generation(name, [1], limit=1, chain=SamplerChain(()), seed=1, stops=())


def test_groups_start_in_order_and_whole() -> None:
    """The answers to one prompt start together, and nobody overtakes a group that needs more slots."""
    waiting = WaitingPrompts(slots=4)
    pair, single = [generation("a"), generation("a#1")], [generation("b")]
    waiting.add([pair], of=4)
    waiting.add([single], of=2)

    assert waiting.take(1) == ()
    assert waiting.take(2) == pair
    assert waiting.take(1) == single
    assert waiting.take(4) == ()


def test_a_batch_larger_than_the_worker_leaves_a_slot() -> None:
    """Where a request has more generations than there are slots, others find one free, unless there is only one."""
    for slots, taken in ((1, 1), (2, 1), (4, 3)):
        waiting = WaitingPrompts(slots)
        waiting.add([[generation(f"a#{number}")] for number in range(9)], of=10)
        free = slots
        while waiting.take(free):
            free -= 1
        assert slots - free == taken


def test_what_is_removed_does_not_start() -> None:
    """A request that was canceled is gone from the line, the others stay."""
    waiting = WaitingPrompts(slots=2)
    waiting.add([[generation("a")], [generation("b")], [generation("a#1")]], of=2)

    removed = waiting.remove(lambda one: one.request_id.startswith("a"))

    assert [one.request_id for one in removed] == ["a", "a#1"]
    assert [one.request_id for one in waiting] == ["b"]
