"""The worker's slots: which tokens a step evaluates, and which cached ones are kept."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbee.worker.scheduling.attention_tiles import AttentionTiles
from rbee.worker.scheduling.slots import COPY_WORTH_TOKENS, SlotTable, StepPlan


def run(table: SlotTable, *, prompts: int = 64) -> list[StepPlan]:
    plans = table.plan(prompts)
    for plan in plans:
        table.record_evaluated(plan)
    table.check_invariants()
    return plans


def test_running_streams_come_before_prompts() -> None:
    """A round begins with the next token of every running stream, in a batch of its own; prompts follow."""
    table = SlotTable(3, 1000, chunk=1000, copies=True)
    table.admit("a", [1, 2])
    run(table)
    table.append_token(0, 3)
    table.admit("b", list(range(100, 600)))

    streams, prompt = run(table, prompts=64)

    assert (streams.tokens, streams.outputs) == ([3], [0])
    assert prompt.advances == {1: 64}
    assert prompt.outputs == []


def test_prompts_of_many_rounds_are_read_at_another_pace_while_streams_run() -> None:
    """What no single round could read has a share of its own beside running streams, down to its last chunk."""
    table = SlotTable(3, 1000, chunk=63, copies=True)
    table.admit("stream", [1, 2])
    run(table)
    table.append_token(0, 3)
    table.admit("long", list(range(100, 170)))
    table.admit("short", list(range(500, 520)))

    plans = table.plan(64, long_prompt_tokens=10)
    rest = list(range(100, 170))
    for plan in plans:
        table.record_evaluated(plan)
    chunks = [70 - table.slots[1].pending]
    while table.slots[1].pending > 1:
        table.append_token(0, 3)
        (chunk,) = [plan for plan in table.plan(64, long_prompt_tokens=10) if 1 in plan.advances]
        assert chunk.tokens == rest[sum(chunks) : sum(chunks) + len(chunk.tokens)]
        table.record_evaluated(chunk)
        chunks.append(len(chunk.tokens))

    assert [plan.advances for plan in plans] == [{0: 1}, {2: 20}, {1: 10}]
    assert chunks == [10] * 7


def test_prompts_have_whole_rounds_where_no_stream_waits() -> None:
    """Nobody is spared who is not there."""
    table = SlotTable(2, 1000, chunk=63, copies=True)
    table.admit("long", list(range(200)))

    (plan,) = table.plan(64, long_prompt_tokens=10)

    assert len(plan.tokens) == 63


def test_what_was_cached_makes_no_prompt_long() -> None:
    """A prompt counts by what of it must be read."""
    table = SlotTable(3, 1000, chunk=63, copies=True)
    table.admit("before", list(range(200)))
    while run(table):
        pass
    table.release(0)
    table.admit("stream", [900, 901])
    run(table)
    table.append_token(1, 902)
    table.admit("again", [*range(200), *range(300, 330)])

    plans = table.plan(64, long_prompt_tokens=10)

    assert [plan.advances for plan in plans] == [{1: 1}, {0: 30}]


def test_a_long_prompt_does_not_stop_a_short_one() -> None:
    """The oldest prompt has half of a round; the shortest rest goes first in the other half."""
    table = SlotTable(3, 10_000, chunk=1000, copies=True)
    table.admit("long", list(range(5000)))
    table.admit("middle", list(range(6000, 6100)))
    table.admit("short", list(range(7000, 7010)))

    plans = run(table, prompts=96)

    assert [plan.advances for plan in plans] == [{2: 10}, {1: 38}, {0: 48}]
    assert [len(plan.outputs) for plan in plans] == [1, 0, 0]


@pytest.mark.parametrize("length", range(1, 40))
@pytest.mark.parametrize("room", [4, 5, 6, 16])
def test_a_prompt_is_never_evaluated_token_by_token(length: int, room: int) -> None:
    """Every chunk of a prompt has two tokens at least, unless the prompt is one token, and is alone in its batch."""
    table = SlotTable(1, 100, chunk=1000, copies=True)
    table.admit("a", list(range(length)))

    chunks = []
    while plans := run(table, prompts=room):
        chunks += [len(plan.tokens) for plan in plans]

    assert sum(chunks) == length
    assert min(chunks) >= min(2, length)
    assert max(chunks) <= room + 1


def test_a_piece_is_no_larger_than_the_engine_wants() -> None:
    """A prompt that has a round to itself still comes in chunks of the engine's size."""
    table = SlotTable(1, 1000, chunk=63, copies=True)
    table.admit("a", list(range(200)))

    assert [len(plan.tokens) for _ in range(4) for plan in run(table, prompts=126)] == [63, 63, 63, 11]


def test_nothing_to_do_is_no_plan() -> None:
    """Without a running request there is no batch."""
    assert SlotTable(2, 100, chunk=1000, copies=True).plan(10) == []


def test_a_slot_waits_for_its_sampled_token() -> None:
    """A slot whose tokens are all evaluated is not in a plan until its next token is known."""
    table = SlotTable(1, 100, chunk=1000, copies=True)
    table.admit("a", [1, 2, 3])
    run(table)

    assert table.plan(10) == []


def test_all_slots_in_use_admit_nobody() -> None:
    """A request without a free slot is not admitted."""
    table = SlotTable(1, 100, chunk=1000, copies=True)
    table.admit("a", [1])

    assert table.admit("b", [1]) is None


def test_a_repeated_prompt_pays_only_for_its_end() -> None:
    """A prompt that is cached whole is evaluated from its last two tokens on, because an output is needed."""
    table = SlotTable(2, 100, chunk=1000, copies=True)
    table.admit("a", [1, 2, 3, 4])
    run(table)
    table.release(0)

    assignment = table.admit("b", [1, 2, 3, 4])

    assert assignment is not None
    assert (assignment.slot, assignment.keep, assignment.copy_from) == (0, 2, None)
    assert [plan.tokens for plan in run(table)] == [[3, 4]]


def test_a_continued_conversation_keeps_its_answer() -> None:
    """What was generated stays cached, so that the next turn pays only for what is new."""
    table = SlotTable(2, 100, chunk=1000, copies=True)
    table.admit("a", [1, 2, 3])
    run(table)
    table.append_token(0, 50)
    run(table)
    table.append_token(0, 51)
    table.release(0)

    assignment = table.admit("b", [1, 2, 3, 50, 51, 4])

    assert assignment is not None
    assert (assignment.slot, assignment.keep) == (0, 4)


def test_a_repeated_prompt_gives_up_its_old_answer() -> None:
    """The same prompt again reuses its slot, although the cached answer is lost, and no other slot is spoilt."""
    table = SlotTable(2, 1000, chunk=1000, copies=True)
    prompt = list(range(40))
    table.admit("a", prompt)
    run(table)
    for token in range(60):
        table.append_token(0, 500 + token)
        run(table)
    table.release(0)

    assignment = table.admit("b", prompt)

    assert assignment is not None
    assert (assignment.slot, assignment.keep) == (0, 38)


def test_a_long_cache_is_not_given_up_for_a_short_prefix() -> None:
    """A request that shares only the beginning of a long cache takes another slot and copies what it shares."""
    table = SlotTable(2, 10_000, chunk=1000, copies=True)
    shared = list(range(COPY_WORTH_TOKENS + 10))
    table.admit("a", shared + list(range(1000, 2000)))
    while run(table, prompts=512):
        pass
    table.release(0)

    assignment = table.admit("b", shared + list(range(3000, 3100)))

    assert assignment is not None
    assert (assignment.slot, assignment.keep, assignment.copy_from) == (1, len(shared), 0)


def test_a_running_slot_lends_its_prefix() -> None:
    """The cache of a slot in use can be copied as far as it is evaluated."""
    table = SlotTable(2, 10_000, chunk=1000, copies=True)
    prompt = list(range(300))
    table.admit("a", prompt)
    run(table, prompts=200)

    assignment = table.admit("b", prompt)

    assert assignment is not None
    assert (assignment.slot, assignment.keep, assignment.copy_from) == (1, 200, 0)


def test_slots_in_use_stay_together() -> None:
    """A request takes the slot next to those in use, rather than one further off that has some of its tokens."""
    table = SlotTable(4, 1000, chunk=1000, copies=True)
    for name, first in (("a", 10), ("b", 20), ("c", 30), ("d", 40)):
        table.admit(name, [first, *range(100, 110)])
        run(table)
    for slot in range(4):
        table.release(slot)
    table.admit("e", [20, *range(100, 120)])

    assignment = table.admit("f", [40, *range(100, 120)])

    assert table.slots[1].request_id == "e"
    assert assignment is not None
    assert assignment.slot in {0, 2}


def test_an_engine_that_cannot_copy_is_not_asked_to() -> None:
    """Without copies a request keeps what its own slot has."""
    table = SlotTable(2, 10_000, chunk=1000, copies=False)
    prompt = list(range(300))
    table.admit("a", prompt)
    run(table, prompts=800)

    assignment = table.admit("b", prompt)

    assert assignment is not None
    assert (assignment.keep, assignment.copy_from) == (0, None)


def test_the_longest_unused_cache_is_given_up_first() -> None:
    """A request that shares nothing takes an empty slot, then the one that was released first."""
    table = SlotTable(3, 100, chunk=1000, copies=True)
    for name, first in (("a", 10), ("b", 20)):
        table.admit(name, [first, first + 1])
        run(table)
    table.release(1)
    table.release(0)

    taken = [table.admit(name, [token, 99]) for name, token in (("c", 30), ("d", 40), ("e", 50))]

    assert [assignment.slot for assignment in taken if assignment is not None] == [2, 1, 0]


def test_a_forgotten_cache_is_evaluated_anew() -> None:
    """When the engine could keep nothing, the whole prompt is planned."""
    table = SlotTable(1, 100, chunk=1000, copies=True)
    table.admit("a", [1, 2, 3])
    run(table)
    table.release(0)
    table.admit("b", [1, 2, 3, 4])

    table.discard_cache(0)

    assert [plan.tokens for plan in run(table)] == [[1, 2, 3, 4]]


TILES = AttentionTiles(30 * 576 / 134.5e6)  # SmolLM2 135M


def rows_of(prompt: int, *, beside: int = 0) -> list[int]:
    """Return the tokens of each batch in which a prompt is read, beside the prompts of so many others."""
    table = SlotTable(5, 10_000, chunk=127, copies=True, tiles=TILES)
    for other in range(beside):
        table.admit(f"other {other}", list(range(10_000 * (other + 2), 10_000 * (other + 2) + 150)))
    assignment = table.admit("own", list(range(prompt)))
    assert assignment is not None
    plans = (plan for _ in range(40) for plan in run(table, prompts=128) if assignment.slot in plan.advances)
    return [len(plan.tokens) for plan in plans]


@pytest.mark.parametrize("beside", [0, 1, 4])
def test_no_batch_of_a_prompt_is_short_of_a_tile(beside: int) -> None:
    """A prompt is read in whole tiles, the last with the rest, alike whoever else is there: fewer rows take longer."""
    for prompt, rows in ((2, [2]), (63, [63]), (100, [100]), (128, [64, 64]), (300, [64, 64, 64, 108])):
        assert rows_of(prompt, beside=beside) == rows


def test_a_short_rest_after_a_long_cache_is_filled_up_to_a_tile() -> None:
    """What was evaluated is evaluated again, where few rows over many cached tokens would take longer than a tile."""
    kept = {}
    for cached, new in ((4096, 47), (4096, 16), (512, 32), (4096, 4), (100, 20), (20, 10), (4096, 100)):
        table = SlotTable(1, 10_000, chunk=127, copies=True, tiles=TILES)
        table.admit("first", list(range(cached)))
        while table.slots[0].pending:
            run(table, prompts=128)
        table.release(0)
        assignment = table.admit("second", [*range(cached), *range(50_000, 50_000 + new)])
        assert assignment is not None
        kept[cached, new] = assignment.keep

    assert kept == {
        (4096, 47): 4096 - 17,
        (4096, 16): 4096 - 48,
        (512, 32): 512 - 32,
        (4096, 4): 4096,
        (100, 20): 100,
        (20, 10): 20,
        (4096, 100): 4096,
    }


def test_beside_streams_pieces_of_long_prompts_stay_short() -> None:
    """Running streams do not wait for a whole tile of a prompt that takes many."""
    table = SlotTable(2, 1000, chunk=127, copies=True, tiles=TILES)
    table.admit("stream", [1, 2])
    run(table)
    table.append_token(0, 3)
    table.admit("long", list(range(100, 400)))

    assert [plan.advances for plan in table.plan(128, long_prompt_tokens=10)] == [{0: 1}, {1: 10}]


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    slots=st.integers(1, 5),
    batch=st.integers(4, 40),
    copies=st.booleans(),
)
def test_any_history_keeps_the_cache_true(seed: int, slots: int, batch: int, *, copies: bool) -> None:
    """Whatever comes and goes, the engine is asked for each token once, in order, and every request gets its turn."""
    rng = random.Random(seed)
    table = SlotTable(slots, 10_000, chunk=1000, copies=copies)
    cache: list[list[int]] = [[] for _ in range(slots)]  # what an engine that does as it is told would hold
    wanted: dict[int, int] = {}
    ids = itertools.count()
    for _ in range(60):
        if rng.random() < 0.4:
            prompt = [rng.randrange(3) for _ in range(rng.randrange(1, 120))]
            assignment = table.admit(str(next(ids)), prompt)
            if assignment is not None:
                source = assignment.slot if assignment.copy_from is None else assignment.copy_from
                cache[assignment.slot] = cache[source][: assignment.keep]
                assert cache[assignment.slot] == prompt[: assignment.keep]
                wanted[assignment.slot] = rng.randrange(1, 6)
        table.check_invariants()
        plans = table.plan(batch)
        assert bool(plans) == bool(table.running)
        for plan in plans:
            assert len(plan.tokens) <= max(batch + 1, slots)
            for token, position, slot in zip(plan.tokens, plan.positions, plan.slots, strict=True):
                assert position == len(cache[slot])
                cache[slot].append(token)
            table.record_evaluated(plan)
            for row in plan.outputs:
                slot = plan.slots[row]
                wanted[slot] -= 1
                if wanted[slot]:
                    table.append_token(slot, rng.randrange(3))
                else:
                    table.release(slot)
        for slot in range(slots):
            assert table.slots[slot].tokens[: table.slots[slot].evaluated] == cache[slot]
        table.check_invariants()


def test_contradictions_are_found() -> None:
    """A table that claims more than it has is refused."""
    table = SlotTable(1, 10, chunk=1000, copies=True)
    table.slots[0].evaluated = 5

    with pytest.raises(AssertionError):
        table.check_invariants()
