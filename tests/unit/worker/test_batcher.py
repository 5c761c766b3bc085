"""The batcher with drafts: over an engine of a few lines whose every token depends on all that was before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbee.contracts.tasks import Sampling
from rbee.worker.engine.protocol import Engine, Logprob, ModelFacts
from rbee.worker.generation import Event, Finished, Generation, TextWithLogprobs
from rbee.worker.scheduling.batcher import Batcher, Delivery
from rbee.worker.scheduling.slots import StepPlan
from rbee.worker.text.sampling import SamplerChain, build_chain

_END = 0
_VOCABULARY = 4
CONTEXT = 200


class Toy:
    """An engine whose next token depends on its cache and on what its sampler has chosen, and that checks both."""

    facts = ModelFacts("toy", CONTEXT, CONTEXT, _VOCABULARY, 1, 1, None, "", "")
    can_copy = True
    can_rewind = True
    chunk_tokens = 8
    tiles = None

    def __init__(self, slots: int, *, interrupt_at: int = -1) -> None:
        self.cache: list[list[int]] = [[] for _ in range(slots)]
        self.chosen: dict[int, list[int]] = {}
        self.written: list[list[int]] = [[] for _ in range(slots)]
        self.steps = 0
        self._interrupt_at = interrupt_at
        self._prefixes: dict[int, list[int]] = {}
        self._slots: dict[int, int] = {}

    def is_end(self, token: int) -> bool:
        return token == _END

    def piece(self, token: int) -> bytes:
        return b" abc"[token : token + 1]

    def set_sampler(self, slot: int, chain: SamplerChain, history: Sequence[int]) -> None:
        del chain, history
        self.chosen[slot] = []

    def clear_sampler(self, slot: int) -> None:
        self.written[slot] = [token for token in self.chosen.pop(slot) if token != _END]

    def truncate(self, slot: int, count: int) -> bool:
        assert len(self.cache[slot]) >= count, "what is not cached cannot be kept"
        del self.cache[slot][count:]
        return True

    def copy(self, source: int, slot: int, count: int) -> None:
        self.cache[slot] = self.cache[source][:count]

    def resume(self) -> None: ...

    def interrupt(self) -> None: ...

    def step(self, plan: StepPlan) -> list[int] | None:
        self.steps += 1
        self._prefixes, self._slots = {}, {}
        for row, (token, position, slot) in enumerate(zip(plan.tokens, plan.positions, plan.slots, strict=True)):
            assert position == len(self.cache[slot]), "a cache is filled in order"
            assert position < CONTEXT, "nothing is evaluated beyond the context"
            self.cache[slot].append(token)
            self._prefixes[row], self._slots[row] = list(self.cache[slot]), slot
        if self.steps == self._interrupt_at:
            return None
        return [self.sample(plan.slots[row], row) for row in plan.outputs]

    def sample(self, slot: int, row: int) -> int:
        assert self._slots[row] == slot
        prefix = self._prefixes[row]
        assert prefix[len(prefix) - len(self.chosen[slot]) :] == self.chosen[slot], "its sampler saw what was written"
        state = hash((tuple(prefix[-3:]), len(self.chosen[slot]) // 40))
        token = _END if state % 89 == 0 else 1 + state % (_VOCABULARY - 1)
        self.chosen[slot].append(token)
        return token

    def logprobs(self, row: int, token: int, most: int) -> list[Logprob]:
        del most
        return [Logprob(token, -float(len(self._prefixes[row])))]


class Run:
    """Run requests to their end; `events` has what each got, texts joined."""

    def __init__(
        self, engine: Toy, requests: Sequence[dict[str, Any]], *, speculate: int, cancel_after: int = -1
    ) -> None:
        self.generations = [
            Generation(
                str(number),
                request["prompt"],
                limit=min(request["limit"], CONTEXT - len(request["prompt"])),
                chain=build_chain(Sampling(), 1),
                seed=1,
                stops=request.get("stops", ()),
                logprobs=request.get("logprobs"),
            )
            for number, request in enumerate(requests)
        ]
        self.engine = engine
        self.events: dict[str, list[Event]] = {one.request_id: [] for one in self.generations}
        self._cancel_after = cancel_after
        self._batcher = Batcher(
            cast("Engine", engine), len(requests), prompt_batch=16, deliver=self._deliver, speculate=speculate
        )
        for generation in self.generations:
            self._batcher.submit(generation)
        self._batcher.run()

    def _deliver(self, delivery: Delivery) -> None:
        for generation, event in delivery:
            self.events[generation.request_id].append(event)
        if 0 <= self._cancel_after <= self.generations[0].generated:
            self._batcher.cancel(self.generations[0])
        self._batcher.table.check_invariants()
        if all(events and isinstance(events[-1], Finished) for events in self.events.values()):
            self._batcher.stop()

    def text(self, number: int = 0) -> str:
        parts = [
            event.text if isinstance(event, TextWithLogprobs) else event for event in self.events[str(number)][:-1]
        ]
        return "".join(cast("list[str]", parts))

    def ending(self, number: int = 0) -> Finished:
        return cast("Finished", self.events[str(number)][-1])

    def logprobs(self, number: int = 0) -> list[float]:
        return [
            entry.logprob
            for event in self.events[str(number)]
            if isinstance(event, TextWithLogprobs)
            for entry in event.logprobs
        ]

    def outcome(self) -> list[Any]:
        count = len(self.generations)
        return [(self.text(number), self.ending(number), self.logprobs(number)) for number in range(count)]


REQUESTS = st.fixed_dictionaries(
    {
        "prompt": st.lists(st.integers(1, 3), min_size=1, max_size=60),
        "limit": st.integers(1, CONTEXT),
        "stops": st.lists(st.text("abc", min_size=2, max_size=6), max_size=2),
        "logprobs": st.sampled_from([None, 0]),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    requests=st.lists(REQUESTS, min_size=1, max_size=4), speculate=st.integers(1, 20), interrupt_at=st.integers(1, 40)
)
def test_drafts_change_no_answer(requests: list[dict[str, Any]], speculate: int, interrupt_at: int) -> None:
    """Texts, ends, counts and scores are the same with drafts and without, at any number of streams."""
    plain = Run(Toy(len(requests)), requests, speculate=0)
    drafted = Run(Toy(len(requests), interrupt_at=interrupt_at), requests, speculate=speculate)

    assert drafted.outcome() == plain.outcome()
    for one in drafted.generations:
        assert 0 <= one.accepted <= min(one.drafted, one.generated)
        cached = drafted.engine.cache[one.slot]
        assert cached == [*one.prompt, *drafted.engine.written[one.slot]][: len(cached)]


def test_a_stream_that_repeats_itself_takes_fewer_steps() -> None:
    """Where guesses come true a step gives several tokens."""
    requests = [{"prompt": [1, 2, 3] * 4, "limit": 35}]
    plain = Run(Toy(1), requests, speculate=0)
    drafted = Run(Toy(1), requests, speculate=8)

    assert drafted.text() == plain.text()
    assert drafted.generations[0].accepted > 10
    assert drafted.engine.steps < plain.engine.steps * 0.7


def test_a_wrong_guess_leaves_the_cache() -> None:
    """Of a draft only what was written stays cached, so that the next request can rely on it."""
    run = Run(Toy(1), [{"prompt": [1, 1, 1, 2, 1, 1, 1, 3, 1, 1, 1], "limit": 60}], speculate=8)
    (one,) = run.generations

    assert 0 < one.accepted < one.drafted
    assert run.engine.cache[0] == [*one.prompt, *run.engine.written[0][:-1]]


@pytest.mark.parametrize("interrupt_at", [-1, 1])
def test_the_time_of_a_batch_is_shared_by_its_rows(monkeypatch: pytest.MonkeyPatch, interrupt_at: int) -> None:
    """What generations that run at once took adds up to what passed, whole batches and broken off ones alike."""
    now, engine = [0.0], Toy(2, interrupt_at=interrupt_at)
    took: list[tuple[float, list[int]]] = []
    step = engine.step

    def timed(plan: StepPlan) -> list[int] | None:
        seconds = 1.0 + len(took)
        now[0] += seconds
        took.append((seconds, plan.slots))
        return step(plan)

    monkeypatch.setattr(engine, "step", timed)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    run = Run(engine, [{"prompt": [1, 2, 3, 4], "limit": 9}, {"prompt": [5, 6], "limit": 3}], speculate=0)

    expected = [sum(seconds * rows.count(slot) / len(rows) for seconds, rows in took) for slot in range(2)]
    assert [round(one.device_s, 6) for one in run.generations] == [round(each, 6) for each in expected]
    assert sum(each.device_s for each in run.generations) == pytest.approx(now[0])


def test_a_cancelled_stream_ends_within_a_step() -> None:
    """A cancel ends a stream after the step that is running, whatever was guessed."""
    run = Run(Toy(1), [{"prompt": [1, 2, 3] * 4, "limit": 150}], speculate=8, cancel_after=20)

    assert run.ending().finish_reason == "cancelled"
    assert 20 <= run.ending().total_tokens <= 20 + 8
