"""Decide what the engine evaluates next, and which cached tokens a new request can keep.

Pure: requests and tokens go in, plans come out; the batcher performs them.
Invariant: the engine's cache of a slot holds exactly `tokens[:evaluated]`; a running slot always has a token that
is not evaluated yet, or is waiting for the one that is being sampled; a free slot has neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

COPY_WORTH_TOKENS = 64  # copying a cache costs about as much as evaluating so many tokens


@dataclass(slots=True)
class Slot:
    """One sequence of the engine: what is in its cache, and the request that uses it, if any.

    `admitted` and `released` are turns, for "oldest first"; 0 means never.
    """

    index: int
    request_id: str | None = None
    tokens: list[int] = field(default_factory=list)
    evaluated: int = 0
    prompt_tokens: int = 0
    admitted: int = 0
    released: int = 0

    @property
    def pending(self) -> int:
        """Count the tokens that are still to be evaluated."""
        return len(self.tokens) - self.evaluated

    @property
    def generating(self) -> bool:
        """Tell whether the prompt is evaluated and the request gives tokens."""
        return self.request_id is not None and self.evaluated >= self.prompt_tokens


@dataclass(frozen=True, slots=True)
class Admission:
    """Where a request runs: keep the first `keep` tokens of the slot's cache, or of `copy_from`'s, and no others."""

    slot: int
    keep: int
    copy_from: int | None = None


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One batch, row by row; `outputs` are the rows whose next token is to be sampled.

    `advances` gives for each slot in the batch how many of its tokens it evaluates.
    """

    tokens: list[int]
    positions: list[int]
    slots: list[int]
    outputs: list[int]
    advances: dict[int, int]


class SlotTable:
    """The slots of one engine.

    Args:
        count: how many.
        context: tokens that one slot can hold.
        copies: whether the engine can copy one slot's cache to another.
    """

    def __init__(self, count: int, context: int, *, copies: bool) -> None:
        self.slots = [Slot(index) for index in range(count)]
        self._context = context
        self._copies = copies
        self._turn = 0

    @property
    def running(self) -> list[Slot]:
        """List the slots in use."""
        return [slot for slot in self.slots if slot.request_id is not None]

    def admit(self, request_id: str, prompt: Sequence[int]) -> Admission | None:
        """Give the request a slot; None if all are in use.

        A slot that the prompt continues is taken, so that only the rest is evaluated. Otherwise the slot whose
        cache was longest unused is, with a prefix copied from another slot where that saves enough.
        """
        free = [slot for slot in self.slots if slot.request_id is None]
        if not free:
            return None
        most = min(len(prompt) - 1, self._context)  # the last token is always evaluated: its output is needed
        shared = {slot.index: min(_common(slot.tokens, slot.evaluated, prompt), most) for slot in self.slots}
        best = max(free, key=lambda slot: (shared[slot.index], -slot.released))
        keep = shared[best.index]
        copy_from = None
        if self._copies and keep * 2 < best.evaluated:
            best = min(free, key=lambda slot: (slot.evaluated > 0, slot.released))
            keep = shared[best.index]
        if self._copies:
            source = max(self.slots, key=lambda slot: shared[slot.index])
            if shared[source.index] >= keep + COPY_WORTH_TOKENS:
                copy_from, keep = source.index, shared[source.index]
        self._turn += 1
        best.request_id = request_id
        best.tokens = list(prompt)
        best.evaluated = keep
        best.prompt_tokens = len(prompt)
        best.admitted = self._turn
        return Admission(best.index, keep, copy_from)

    def plan(self, batch_tokens: int, prompt_tokens: int) -> StepPlan | None:
        """Fill one batch of at most *batch_tokens*; None if there is nothing to evaluate.

        Running streams come first. Prompts share what is left, *prompt_tokens* at most: the oldest may have half
        of it, then the shortest rest goes first, so that a long prompt stops neither streams nor short prompts.
        """
        plan = StepPlan([], [], [], [], {})
        prompts: list[Slot] = []
        for slot in self.slots:
            if slot.request_id is None or not slot.pending:
                continue
            if slot.generating:
                _add(plan, slot, 1)
            else:
                prompts.append(slot)
        room = min(prompt_tokens, batch_tokens - len(plan.tokens))
        for slot, count in _share(prompts, room):
            _add(plan, slot, count)
        return plan if plan.tokens else None

    def evaluated(self, plan: StepPlan) -> None:
        """Take note that the engine has evaluated *plan*."""
        for index, count in plan.advances.items():
            self.slots[index].evaluated += count

    def generated(self, index: int, token: int) -> None:
        """Take the next token of a slot, to be evaluated in the next step."""
        self.slots[index].tokens.append(token)

    def forgotten(self, index: int) -> None:
        """Take note that the engine could keep nothing of this slot's cache."""
        self.slots[index].evaluated = 0

    def release(self, index: int) -> None:
        """End the slot's request; what is evaluated stays cached."""
        slot = self.slots[index]
        self._turn += 1
        slot.request_id = None
        del slot.tokens[slot.evaluated :]
        slot.prompt_tokens = 0
        slot.released = self._turn

    def check_invariants(self) -> None:
        """Raise AssertionError where the table contradicts itself."""
        for slot in self.slots:
            assert 0 <= slot.evaluated <= len(slot.tokens), slot
            assert slot.evaluated <= self._context, slot
            if slot.request_id is None:
                assert slot.pending == 0, slot
                assert slot.prompt_tokens == 0, slot
            else:
                assert 0 < slot.prompt_tokens <= len(slot.tokens), slot
                assert slot.pending <= 1 or not slot.generating, slot
        ids = [slot.request_id for slot in self.running]
        assert len(ids) == len(set(ids)), ids


def _common(cached: list[int], count: int, prompt: Sequence[int]) -> int:
    """Count the tokens at the start of *prompt* that are the cached ones."""
    length = min(count, len(prompt))
    for position in range(length):
        if cached[position] != prompt[position]:
            return position
    return length


def _share(prompts: list[Slot], room: int) -> list[tuple[Slot, int]]:
    """Divide *room* among the prompts that wait."""
    if not prompts or room <= 0:
        return []
    oldest = min(prompts, key=lambda slot: slot.admitted)
    given = {oldest.index: min(oldest.pending, max(1, room // 2))}
    room -= given[oldest.index]
    for slot in sorted(prompts, key=lambda slot: (slot.pending, slot.admitted)):
        had = given.get(slot.index, 0)
        more = min(slot.pending - had, room)
        if more > 0:
            given[slot.index] = had + more
            room -= more
    return [(slot, given[slot.index]) for slot in prompts if slot.index in given]


def _add(plan: StepPlan, slot: Slot, count: int) -> None:
    """Append the slot's next *count* tokens."""
    first = slot.evaluated
    plan.tokens.extend(slot.tokens[first : first + count])
    plan.positions.extend(range(first, first + count))
    plan.slots.extend([slot.index] * count)
    plan.advances[slot.index] = count
    if first + count == len(slot.tokens):
        plan.outputs.append(len(plan.tokens) - 1)
