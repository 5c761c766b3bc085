"""Decide what the engine evaluates next, and which cached tokens a new request can keep.

Pure: requests and tokens go in, plans come out; the batcher performs them.
Invariant: the engine's cache of a slot holds exactly `tokens[:evaluated]`; a running slot always has a token that
is not evaluated yet, or is waiting for the one that is being sampled; a free slot has neither.

So that equal requests give equal tokens whatever else runs and whatever is cached, a prompt is never evaluated one
token at a time nor together with other slots: engines compute one row, and rows of several sequences, by other paths
that round differently. Drafts give that up: with them the tokens of a stream are evaluated by ones or several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_LEAST_PIECE = 2
COPY_WORTH_TOKENS = 16  # copying a cache takes as long as evaluating a few tokens, on a CPU and on a GPU
_GAP_TOKENS = 256  # llama.cpp computes only neighbouring slots together: each gap costs a share of every step
_OLD_TOKEN_WORTH = 0.25  # how likely it is that a cached token would have been of use later


@dataclass(slots=True)
class Slot:
    """One sequence of the engine: what is in its cache, and the request that uses it, if any.

    `kept` are the tokens of its prompt that were in the cache already. `admitted` and `released` are turns, for
    "oldest first"; 0 means never.
    """

    index: int
    request_id: str | None = None
    tokens: list[int] = field(default_factory=list)
    evaluated: int = 0
    prompt_tokens: int = 0
    kept: int = 0
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
    """One batch of the engine, row by row; `outputs` are the rows whose next token is to be sampled.

    `advances` gives for each slot in the batch how many of its tokens it evaluates. `drafts` has by slot guessed
    tokens, whose rows follow that slot's output and are outputs too: each counts if the one before gave its token.
    """

    tokens: list[int]
    positions: list[int]
    slots: list[int]
    outputs: list[int]
    advances: dict[int, int]
    drafts: Mapping[int, Sequence[int]] = field(default_factory=dict)


class SlotTable:
    """The slots of one engine.

    Args:
        count: how many.
        context: tokens that one slot can hold.
        piece: prompt tokens that one batch may have.
        copies: whether the engine can copy one slot's cache to another.
    """

    def __init__(self, count: int, context: int, *, piece: int, copies: bool) -> None:
        self.slots = [Slot(index) for index in range(count)]
        self._context = context
        self._piece = piece
        self._copies = copies
        self._turn = 0

    @property
    def running(self) -> list[Slot]:
        """List the slots in use."""
        return [slot for slot in self.slots if slot.request_id is not None]

    def admit(self, request_id: str, prompt: Sequence[int]) -> Admission | None:
        """Give the request a slot; None if all are in use.

        The one that saves most is taken: tokens that need no evaluation, its own or copied, less the cached tokens
        that are given up for it, and less what gaps between the slots in use cost; of equal ones the longest unused.
        """
        free = [slot for slot in self.slots if slot.request_id is None]
        if not free:
            return None
        most = max(0, len(prompt) - _LEAST_PIECE)  # the end is always evaluated: its output is needed
        shared = {slot.index: min(_common(slot.tokens, slot.evaluated, prompt), most) for slot in self.slots}
        source = max(self.slots, key=lambda slot: shared[slot.index]).index
        copied = shared[source] if self._copies else 0

        used = {slot.index for slot in self.running}

        def saved(slot: Slot) -> float:
            own = shared[slot.index]
            lost = (slot.evaluated - own) * _OLD_TOKEN_WORTH
            return max(own, copied - COPY_WORTH_TOKENS) - lost - _gaps({*used, slot.index}) * _GAP_TOKENS

        best = max(free, key=lambda slot: (saved(slot), -slot.released))
        keep, copy_from = shared[best.index], None
        if copied - COPY_WORTH_TOKENS >= keep:
            keep, copy_from = copied, source
        self._turn += 1
        best.request_id = request_id
        best.tokens = list(prompt)
        best.evaluated = best.kept = keep
        best.prompt_tokens = len(prompt)
        best.admitted = self._turn
        return Admission(best.index, keep, copy_from)

    def plan(
        self,
        prompt_tokens: int,
        drafts: Mapping[int, Sequence[int]] | None = None,
        *,
        long_prompt_tokens: int | None = None,
    ) -> list[StepPlan]:
        """Give the batches of one round: the next token of all running streams, then a piece of each prompt.

        Prompts share *prompt_tokens*: the oldest may have half of it, then the shortest rest goes first, so that a
        long prompt stops neither streams nor short prompts. Where streams run, those that no single round could read
        share *long_prompt_tokens* instead. Nothing to evaluate gives no batch. *drafts* has by slot what a stream's
        next tokens may be; they take nothing from the prompts' share.
        """
        drafts = drafts or {}
        streams = StepPlan([], [], [], [], {}, drafts)
        prompts: list[Slot] = []
        for slot in self.slots:
            if slot.request_id is None or not slot.pending:
                continue
            if slot.generating:
                _add(streams, slot, 1)
                _add_draft(streams, slot, drafts.get(slot.index, ()))
            else:
                prompts.append(slot)
        plans = [streams] if streams.tokens else []
        long: list[Slot] = []
        if streams.tokens and long_prompt_tokens is not None:
            long = [slot for slot in prompts if slot.prompt_tokens - slot.kept > prompt_tokens]
            prompts = [slot for slot in prompts if slot not in long]
        pieces = _share(prompts, prompt_tokens, self._piece)
        pieces += _share(long, min(long_prompt_tokens or 0, prompt_tokens), self._piece)
        for slot, count in pieces:
            piece = StepPlan([], [], [], [], {})
            _add(piece, slot, count)
            plans.append(piece)
        return plans

    def evaluated(self, plan: StepPlan) -> None:
        """Take note that the engine has evaluated *plan*."""
        for index, count in plan.advances.items():
            self.slots[index].evaluated += count

    def generated(self, index: int, token: int) -> None:
        """Take the next token of a slot, to be evaluated in the next step."""
        self.slots[index].tokens.append(token)

    def confirmed(self, index: int) -> None:
        """Take note that a slot's next token was drafted, and so is evaluated already."""
        self.slots[index].evaluated += 1

    def forgotten(self, index: int) -> None:
        """Take note that the engine could keep nothing of this slot's cache."""
        self.slots[index].evaluated = self.slots[index].kept = 0

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


def _gaps(indices: set[int]) -> int:
    """Count the places where a slot in use is not next to the one before."""
    return sum(1 for index in indices if index - 1 not in indices) - 1


def _share(prompts: list[Slot], room: int, piece: int) -> list[tuple[Slot, int]]:
    """Divide *room* among the prompts that wait, in the order in which they should be evaluated."""
    if not prompts:
        return []
    oldest = min(prompts, key=lambda slot: slot.admitted)
    given = {oldest.index: min(oldest.pending, max(_LEAST_PIECE, room // 2), piece)}
    room -= given[oldest.index]
    by_rest = sorted(prompts, key=lambda slot: (slot.pending, slot.admitted))
    for slot in by_rest:
        had = given.get(slot.index, 0)
        more = min(slot.pending - had, room, piece - had)
        if more > 0:
            given[slot.index] = had + more
            room -= more
    pieces = [(slot, _whole_piece(slot, given.get(slot.index, 0))) for slot in by_rest]
    return [(slot, count) for slot, count in pieces if count]


def _whole_piece(slot: Slot, count: int) -> int:
    """Correct a piece so that neither it nor what it leaves is a single token, unless the prompt is one."""
    if slot.pending <= _LEAST_PIECE + 1:
        return slot.pending if count else 0
    if slot.pending - count == 1:
        count -= 1
    return count if count >= _LEAST_PIECE else 0


def _add(plan: StepPlan, slot: Slot, count: int) -> None:
    """Append the slot's next *count* tokens."""
    first = slot.evaluated
    plan.tokens.extend(slot.tokens[first : first + count])
    plan.positions.extend(range(first, first + count))
    plan.slots.extend([slot.index] * count)
    plan.advances[slot.index] = count
    if first + count == len(slot.tokens):
        plan.outputs.append(len(plan.tokens) - 1)


def _add_draft(plan: StepPlan, slot: Slot, draft: Sequence[int]) -> None:
    """Append guessed tokens behind the slot's last."""
    count, first = len(draft), len(slot.tokens)
    plan.tokens.extend(draft)
    plan.positions.extend(range(first, first + count))
    plan.slots.extend([slot.index] * count)
