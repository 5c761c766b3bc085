"""The worker's slots: which tokens a step evaluates, and which cached ones are kept."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbee.worker.slots import COPY_WORTH_TOKENS, SlotTable, StepPlan


def run(table: SlotTable, *, batch: int = 64, prompts: int = 64) -> StepPlan:
    plan = table.plan(batch, prompts)
    assert plan is not None
    table.evaluated(plan)
    table.check_invariants()
    return plan


def test_running_streams_come_before_prompts() -> None:
    """A step holds the next token of every running stream, and a prompt gets only what is left."""
    table = SlotTable(3, 1000, copies=True)
    table.admit("a", [1, 2])
    run(table)
    table.generated(0, 3)
    table.admit("b", list(range(100, 600)))

    plan = run(table, batch=65, prompts=64)

    assert plan.tokens[0] == 3
    assert plan.advances == {0: 1, 1: 64}
    assert plan.outputs == [0]


def test_a_long_prompt_does_not_stop_a_short_one() -> None:
    """The oldest prompt has half of a step; the shortest rest goes first in the other half."""
    table = SlotTable(3, 10_000, copies=True)
    table.admit("long", list(range(5000)))
    table.admit("middle", list(range(6000, 6100)))
    table.admit("short", list(range(7000, 7010)))

    plan = run(table, batch=100, prompts=96)

    assert plan.advances == {0: 48, 1: 38, 2: 10}
    assert [plan.slots[row] for row in plan.outputs] == [2]


def test_nothing_to_do_is_no_plan() -> None:
    """Without a running request there is no batch."""
    assert SlotTable(2, 100, copies=True).plan(10, 10) is None


def test_a_slot_waits_for_its_sampled_token() -> None:
    """A slot whose tokens are all evaluated is not in a plan until its next token is known."""
    table = SlotTable(1, 100, copies=True)
    table.admit("a", [1, 2, 3])
    run(table)

    assert table.plan(10, 10) is None


def test_all_slots_in_use_admit_nobody() -> None:
    """A request without a free slot is not admitted."""
    table = SlotTable(1, 100, copies=True)
    table.admit("a", [1])

    assert table.admit("b", [1]) is None


def test_a_repeated_prompt_pays_only_for_its_last_token() -> None:
    """A prompt that is cached whole is evaluated from its last token on, because its output is needed."""
    table = SlotTable(2, 100, copies=True)
    table.admit("a", [1, 2, 3, 4])
    run(table)
    table.release(0)

    admission = table.admit("b", [1, 2, 3, 4])

    assert admission is not None
    assert (admission.slot, admission.keep, admission.copy_from) == (0, 3, None)
    assert run(table).tokens == [4]


def test_a_continued_conversation_keeps_its_answer() -> None:
    """What was generated stays cached, so that the next turn pays only for what is new."""
    table = SlotTable(2, 100, copies=True)
    table.admit("a", [1, 2, 3])
    run(table)
    table.generated(0, 50)
    run(table)
    table.generated(0, 51)
    table.release(0)

    admission = table.admit("b", [1, 2, 3, 50, 51, 4])

    assert admission is not None
    assert (admission.slot, admission.keep) == (0, 4)


def test_a_long_cache_is_not_given_up_for_a_short_prefix() -> None:
    """A request that shares only the beginning of a long cache takes another slot and copies what it shares."""
    table = SlotTable(2, 10_000, copies=True)
    shared = list(range(COPY_WORTH_TOKENS + 10))
    table.admit("a", shared + list(range(1000, 2000)))
    while table.plan(512, 512):
        run(table, batch=512, prompts=512)
    table.release(0)

    admission = table.admit("b", shared + list(range(3000, 3100)))

    assert admission is not None
    assert (admission.slot, admission.keep, admission.copy_from) == (1, len(shared), 0)


def test_a_running_slot_lends_its_prefix() -> None:
    """The cache of a slot in use can be copied as far as it is evaluated."""
    table = SlotTable(2, 10_000, copies=True)
    prompt = list(range(300))
    table.admit("a", prompt)
    run(table, batch=200, prompts=200)

    admission = table.admit("b", prompt)

    assert admission is not None
    assert (admission.slot, admission.keep, admission.copy_from) == (1, 200, 0)


def test_an_engine_that_cannot_copy_is_not_asked_to() -> None:
    """Without copies a request keeps what its own slot has."""
    table = SlotTable(2, 10_000, copies=False)
    prompt = list(range(300))
    table.admit("a", prompt)
    run(table, batch=400, prompts=400)

    admission = table.admit("b", prompt)

    assert admission is not None
    assert (admission.keep, admission.copy_from) == (0, None)


def test_the_longest_unused_cache_is_given_up_first() -> None:
    """A request that shares nothing takes an empty slot, then the one that was released first."""
    table = SlotTable(3, 100, copies=True)
    for name, first in (("a", 10), ("b", 20)):
        table.admit(name, [first, first + 1])
        run(table)
    table.release(1)
    table.release(0)

    taken = [table.admit(name, [token, 99]) for name, token in (("c", 30), ("d", 40), ("e", 50))]

    assert [admission.slot for admission in taken if admission is not None] == [2, 1, 0]


def test_a_forgotten_cache_is_evaluated_anew() -> None:
    """When the engine could keep nothing, the whole prompt is planned."""
    table = SlotTable(1, 100, copies=True)
    table.admit("a", [1, 2, 3])
    run(table)
    table.release(0)
    table.admit("b", [1, 2, 3, 4])

    table.forgotten(0)

    assert run(table).tokens == [1, 2, 3, 4]


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    slots=st.integers(1, 5),
    batch=st.integers(1, 40),
    copies=st.booleans(),
)
def test_any_history_keeps_the_cache_true(seed: int, slots: int, batch: int, *, copies: bool) -> None:
    """Whatever comes and goes, the engine is asked for each token once, in order, and every request gets its turn."""
    rng = random.Random(seed)
    table = SlotTable(slots, 10_000, copies=copies)
    cache: list[list[int]] = [[] for _ in range(slots)]  # what an engine that does as it is told would hold
    wanted: dict[int, int] = {}
    ids = itertools.count()
    for _ in range(60):
        if rng.random() < 0.4:
            prompt = [rng.randrange(3) for _ in range(rng.randrange(1, 120))]
            admission = table.admit(str(next(ids)), prompt)
            if admission is not None:
                source = admission.slot if admission.copy_from is None else admission.copy_from
                cache[admission.slot] = cache[source][: admission.keep]
                assert cache[admission.slot] == prompt[: admission.keep]
                wanted[admission.slot] = rng.randrange(1, 6)
        table.check_invariants()
        plan = table.plan(batch + slots, batch)
        if plan is None:
            assert not table.running
            continue
        assert len(plan.tokens) <= batch + slots
        for token, position, slot in zip(plan.tokens, plan.positions, plan.slots, strict=True):
            assert position == len(cache[slot])
            cache[slot].append(token)
        table.evaluated(plan)
        for row in plan.outputs:
            slot = plan.slots[row]
            wanted[slot] -= 1
            if wanted[slot]:
                table.generated(slot, rng.randrange(3))
            else:
                table.release(slot)
        for slot in range(slots):
            assert table.slots[slot].tokens[: table.slots[slot].evaluated] == cache[slot]
        table.check_invariants()


def test_contradictions_are_found() -> None:
    """A table that claims more than it has is refused."""
    table = SlotTable(1, 10, copies=True)
    table.slots[0].evaluated = 5

    with pytest.raises(AssertionError):
        table.check_invariants()
