"""Decide what the engine evaluates next, and which cached tokens a new request can reuse.

Pure: requests and tokens go in, plans come out; the batcher performs them.
Invariant: the engine's cache of a slot holds exactly `tokens[:evaluated]`; a running slot always has a token that
is not evaluated yet, or is waiting for the one that is being sampled; a free slot has neither.

So that equal requests give equal tokens whatever else runs, a prompt is never evaluated one token at a time nor
together with other slots: engines compute one row, and rows of several sequences, by other paths that round
differently. Where attention is computed in tiles, batches short of one are such a path too: a prompt is cut into pieces
that are not, except for the rest of a cached one and for a prompt of many rounds beside streams. Drafts give that up:
with them the tokens of a stream are evaluated by ones or several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rbee.worker.scheduling.attention_tiles import TILE_TOKENS, AttentionTiles, piece

_MIN_CHUNK = 2
COPY_WORTH_TOKENS = 16  # copying a cache takes as long as evaluating a few tokens, on a CPU and on a GPU
_GAP_TOKENS = 256  # llama.cpp computes only neighbouring slots together: each gap costs a share of every step
_OLD_TOKEN_WORTH = 0.25  # how likely it is that a cached token would have been of use later


@dataclass(slots=True)
class Slot:
    """One sequence of the engine: what is in its cache, and the request that uses it, if any.

    `reused` counts the tokens of its prompt that were in the cache already. `admitted` and `released` are sequence
    numbers, for "oldest first"; 0 means never.
    """

    index: int
    request_id: str | None = None
    tokens: list[int] = field(default_factory=list)
    evaluated: int = 0
    prompt_tokens: int = 0
    reused: int = 0
    admitted: int = 0
    released: int = 0

    @property
    def pending(self) -> int:
        """Return the number of tokens that are still to be evaluated."""
        return len(self.tokens) - self.evaluated

    @property
    def generating(self) -> bool:
        """Return whether the prompt is evaluated and the request generates tokens."""
        return self.request_id is not None and self.evaluated >= self.prompt_tokens


@dataclass(frozen=True, slots=True)
class SlotAssignment:
    """The slot of a request; of its cache, or of `copy_from`'s, the first `keep` tokens are reused and no others."""

    slot: int
    keep: int
    copy_from: int | None = None


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One batch of the engine, row by row; `outputs` are the rows whose next token is to be sampled.

    `advances` holds for each slot in the batch how many of its tokens it evaluates. `drafts` holds by slot the drafted
    tokens, whose rows follow that slot's output and are outputs too: each counts if the row before gave its token.
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
        chunk: prompt tokens that one batch may have; with *tiles* at least two tiles less one token.
        copies: whether the engine can copy one slot's cache to another, and cut it anywhere.
        tiles: the tiles in which the engine computes attention; None if the length of a batch makes no difference.
    """

    def __init__(
        self, count: int, context: int, *, chunk: int, copies: bool, tiles: AttentionTiles | None = None
    ) -> None:
        self.slots = [Slot(index) for index in range(count)]
        self._context = context
        self._chunk = chunk
        self._copies = copies
        self._tiles = tiles
        self._sequence = 0

    @property
    def running(self) -> list[Slot]:
        """Return the slots in use."""
        return [slot for slot in self.slots if slot.request_id is not None]

    def admit(self, request_id: str, prompt: Sequence[int]) -> SlotAssignment | None:
        """Assign a slot to the request; return None if all are in use.

        The slot that saves most is chosen: tokens that need no evaluation, its own or copied, less the cached tokens
        that are evicted for it, and less what gaps between the slots in use cost; of equal ones the longest unused.
        """
        free = [slot for slot in self.slots if slot.request_id is None]
        if not free:
            return None
        most = max(0, len(prompt) - _MIN_CHUNK)  # the end is always evaluated: its output is needed
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
        if self._tiles and self._copies and self._tiles.worth_filling(len(prompt) - keep, keep):
            keep = len(prompt) - TILE_TOKENS
        self._sequence += 1
        best.request_id = request_id
        best.tokens = list(prompt)
        best.evaluated = best.reused = keep
        best.prompt_tokens = len(prompt)
        best.admitted = self._sequence
        return SlotAssignment(best.index, keep, copy_from)

    def plan(
        self,
        prompt_tokens: int,
        drafts: Mapping[int, Sequence[int]] | None = None,
        *,
        long_prompt_tokens: int | None = None,
    ) -> list[StepPlan]:
        """Build the batches of one round: the next token of all running streams, then a chunk of each prompt.

        Prompts share *prompt_tokens*: the oldest may have half of it, then the shortest rest goes first, so that a
        long prompt stops neither streams nor short prompts. Where streams run, prompts too long for a single round
        share *long_prompt_tokens* instead. Without anything to evaluate the list is empty. *drafts* holds by slot what
        a stream's next tokens may be; they take nothing from the prompts' share.
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
            long = [slot for slot in prompts if slot.prompt_tokens - slot.reused > prompt_tokens]
            prompts = [slot for slot in prompts if slot not in long]
        chunks = self._share(prompts, prompt_tokens)
        chunks += self._share(long, min(long_prompt_tokens or 0, prompt_tokens))
        for slot, count in chunks:
            chunk = StepPlan([], [], [], [], {})
            _add(chunk, slot, count)
            plans.append(chunk)
        return plans

    def _share(self, prompts: list[Slot], room: int) -> list[tuple[Slot, int]]:
        if self._tiles is not None and room >= TILE_TOKENS:
            return _pieces(prompts, room)
        return _share(prompts, room, self._chunk)

    def record_evaluated(self, plan: StepPlan) -> None:
        """Record that the engine has evaluated *plan*."""
        for index, count in plan.advances.items():
            self.slots[index].evaluated += count

    def append_token(self, index: int, token: int) -> None:
        """Append the next token of a slot, to be evaluated in the next step."""
        self.slots[index].tokens.append(token)

    def accept_draft(self, index: int) -> None:
        """Record that a slot's next token was drafted, and so is evaluated already."""
        self.slots[index].evaluated += 1

    def discard_cache(self, index: int) -> None:
        """Record that the engine could keep nothing of this slot's cache."""
        self.slots[index].evaluated = self.slots[index].reused = 0

    def release(self, index: int) -> None:
        """Free the slot; what is evaluated stays cached."""
        slot = self.slots[index]
        self._sequence += 1
        slot.request_id = None
        del slot.tokens[slot.evaluated :]
        slot.prompt_tokens = 0
        slot.released = self._sequence

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
    """Return the length of the common prefix of *prompt* and the cached tokens."""
    length = min(count, len(prompt))
    for position in range(length):
        if cached[position] != prompt[position]:
            return position
    return length


def _gaps(indices: set[int]) -> int:
    """Return how often a slot in use is not next to the one before."""
    return sum(1 for index in indices if index - 1 not in indices) - 1


def _pieces(prompts: list[Slot], room: int) -> list[tuple[Slot, int]]:
    """Give a whole piece to the oldest prompt, and to the others, those with the shortest rest first, while room is."""
    by_rest = sorted(prompts, key=lambda slot: (slot.pending, slot.admitted))
    oldest = min(prompts, key=lambda slot: slot.admitted, default=None)
    room -= piece(oldest.pending) if oldest else 0
    chunks = []
    for slot in by_rest:
        count = piece(slot.pending)
        if slot is not oldest:
            if count > room:
                continue
            room -= count
        chunks.append((slot, count))
    return chunks


def _share(prompts: list[Slot], room: int, chunk: int) -> list[tuple[Slot, int]]:
    """Divide *room* among the waiting prompts, in the order in which they should be evaluated."""
    if not prompts:
        return []
    oldest = min(prompts, key=lambda slot: slot.admitted)
    given = {oldest.index: min(oldest.pending, max(_MIN_CHUNK, room // 2), chunk)}
    room -= given[oldest.index]
    by_rest = sorted(prompts, key=lambda slot: (slot.pending, slot.admitted))
    for slot in by_rest:
        had = given.get(slot.index, 0)
        more = min(slot.pending - had, room, chunk - had)
        if more > 0:
            given[slot.index] = had + more
            room -= more
    chunks = [(slot, _adjust_chunk(slot, given.get(slot.index, 0))) for slot in by_rest]
    return [(slot, count) for slot, count in chunks if count]


def _adjust_chunk(slot: Slot, count: int) -> int:
    """Adjust a chunk so that neither it nor what it leaves is a single token, unless the prompt is one."""
    if slot.pending <= _MIN_CHUNK + 1:
        return slot.pending if count else 0
    if slot.pending - count == 1:
        count -= 1
    return count if count >= _MIN_CHUNK else 0


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
    """Append drafted tokens behind the slot's last."""
    count, first = len(draft), len(slot.tokens)
    plan.tokens.extend(draft)
    plan.positions.extend(range(first, first + count))
    plan.slots.extend([slot.index] * count)
