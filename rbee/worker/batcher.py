"""The engine's thread: take requests, plan one batch, evaluate it, hand the tokens back, repeat."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.tasks import FinishReason
from rbee.errors import RbeeError
from rbee.worker.engine.protocol import Engine, EngineFailedError
from rbee.worker.generation import Ending, Event, Generation, Scored, TokenScore
from rbee.worker.pace import Pace
from rbee.worker.slots import SlotTable, StepPlan
from rbee.worker.speculation import Speculation, Stream


@dataclass(frozen=True, slots=True)
class Embedding:
    """A text whose embedding is wished; `vector` is cancelled by whoever does not want it any more."""

    tokens: list[int]
    vector: Future[list[float]] = field(default_factory=Future)


Delivery = list[tuple[Generation, Event]]


class Batcher:
    """Continuous batching over one engine.

    `run` belongs to the engine's thread; every other method may be called from any thread.

    Args:
        deliver: takes the events of a whole step at once, on the engine's thread.
        prompt_batch: prompt tokens in one round at most; running streams wait that long for their next token, except
            for prompts that take more than one round: these are read at a `Pace`.
        speculate: drafted tokens in one batch at most; 0 unless the engine can rewind.
    """

    def __init__(
        self,
        engine: Engine,
        slots: int,
        *,
        prompt_batch: int,
        deliver: Callable[[Delivery], None],
        speculate: int = 0,
    ) -> None:
        self.table: Final = SlotTable(slots, engine.facts.context, piece=engine.piece_tokens, copies=engine.can_copy)
        self._engine = engine
        self._prompt_batch = prompt_batch
        self._pace = Pace(prompt_batch)
        self._speculation = Speculation(speculate) if speculate else None
        self._deliver = deliver
        self._inbox: queue.SimpleQueue[Generation | Embedding | None] = queue.SimpleQueue()
        self._by_slot: dict[int, Generation] = {}
        self._held: list[Generation] = []  # until the one with the same prompt has read it: then it is copied
        self._stopping = False
        self.progressed_at = time.monotonic()

    def submit(self, item: Generation | Embedding) -> None:
        """Start a generation or an embedding; the caller knows that a slot is free."""
        self._inbox.put(item)

    def cancel(self, generation: Generation) -> None:
        """End a generation within the step that is running."""
        generation.cancelled = True
        if generation.generated == 0:  # its prompt may be a long batch: break it off
            self._engine.interrupt()

    def stop(self) -> None:
        """End `run` after the step that is running; what still generates is cancelled."""
        self._inbox.put(None)

    def run(self) -> None:
        """Work until `stop`. Raises EngineFailedError, with the requests left in `running`."""
        while not self._stopping:
            self._step()
        for generation in self._held:
            self._admit(generation)
        self._drop(lambda _: True)

    def running(self) -> list[Generation]:
        """List the generations that have a slot, or are about to get one; embeddings that wait are given up."""
        waiting = []
        while not self._inbox.empty():
            waiting.append(self._inbox.get_nowait())
        for item in waiting:
            if isinstance(item, Embedding):
                item.vector.cancel()
        queued = (item for item in waiting if isinstance(item, Generation))
        return [*self._by_slot.values(), *self._held, *queued]

    def _step(self) -> None:
        self._engine.resume()
        self._take_requests()
        self._drop(lambda generation: generation.cancelled)
        drafts = self._speculation.drafts(self._streams()) if self._speculation is not None else None
        streams_s = prompts_s = 0.0
        read = 0
        for plan in self.table.plan(self._prompt_batch, drafts, long_prompt_tokens=self._pace.tokens):
            reads = not self.table.slots[plan.slots[0]].generating
            began = time.monotonic()
            tokens = self._engine.step(plan)
            if tokens is None:
                self._rewind(plan)
                return
            took = time.monotonic() - began
            if reads:
                prompts_s, read = prompts_s + took, read + len(plan.tokens)
            else:
                streams_s = took
            self._take_tokens(plan, tokens)
        self._pace.took(streams_s, prompts_s, read)

    def _take_tokens(self, plan: StepPlan, tokens: list[int]) -> None:
        self.table.evaluated(plan)
        self.progressed_at = time.monotonic()
        delivery: Delivery = []
        for row, token in zip(plan.outputs, tokens, strict=True):
            generation = self._by_slot[plan.slots[row]]
            self._take(generation, row, token, delivery)
            if plan.drafts:
                self._confirm(generation, plan.drafts.get(generation.slot, ()), row, token, delivery)
        if delivery:
            self._deliver(delivery)

    def _take(self, generation: Generation, row: int, token: int, delivery: Delivery) -> None:
        if generation.scores is not None and not self._engine.ends(token):
            generation.unshown.append(self._score(row, token, generation.scores))
        self._next_token(generation, token, delivery)

    def _confirm(self, generation: Generation, draft: Sequence[int], row: int, token: int, delivery: Delivery) -> None:
        """Go on through a draft for as long as the sampler chooses its tokens, and cut the rest out of the cache.

        Each row is sampled only once the token before it is certain, so that penalties, grammar and chance see what
        they would see without a draft.
        """
        slot, accepted = generation.slot, 0
        for drafted in draft:
            if token != drafted:
                break
            accepted += 1
            if self._by_slot.get(slot) is not generation:
                break
            self.table.confirmed(slot)
            token = self._engine.sample(slot, row + accepted)
            self._take(generation, row + accepted, token, delivery)
        generation.drafted += len(draft)
        generation.accepted += accepted
        if self._speculation is not None and self._by_slot.get(slot) is generation:
            self._speculation.judged(slot, len(draft), accepted)
        self._cut_back(slot)

    def _take_requests(self) -> None:
        """Admit what has come; wait for something if there is nothing else to do."""
        ready = [
            generation for generation in self._held if generation.cancelled or not self._reads_its_prompt(generation)
        ]
        for generation in ready:
            self._held.remove(generation)
            self._admit(generation)
        while not self._by_slot or not self._inbox.empty():
            item = self._inbox.get()
            if item is None:
                self._stopping = True
                return
            if isinstance(item, Embedding):
                self._embed(item)
            elif self._reads_its_prompt(item):
                self._held.append(item)
            else:
                self._admit(item)

    def _reads_its_prompt(self, generation: Generation) -> bool:
        """Tell whether another one is reading the prompt of *generation* just now, to be copied from there."""
        other = generation.after
        if other is None or not self._engine.can_copy:
            return False
        return other.generated == 0 and self._by_slot.get(other.slot) is other

    def _embed(self, item: Embedding) -> None:
        self.progressed_at = time.monotonic()
        if not item.vector.set_running_or_notify_cancel():
            return
        try:
            item.vector.set_result(self._engine.embed(item.tokens))
        except EngineFailedError as error:
            item.vector.set_exception(RbeeError(ErrorCode.WORKER_CRASHED, f"The engine failed: {error}."))
            raise

    def _admit(self, generation: Generation) -> None:
        self.progressed_at = time.monotonic()
        admission = self.table.admit(generation.request_id, generation.prompt)
        if admission is None:
            raise AssertionError("a request was submitted without a free slot")
        slot, keep = admission.slot, admission.keep
        if admission.copy_from is not None:
            self._engine.copy(admission.copy_from, slot, keep)
        elif not self._engine.keep(slot, keep) and keep:
            self.table.forgotten(slot)
            keep = 0
        self._engine.start(slot, generation.chain, generation.prompt)
        generation.slot = slot
        generation.cached_tokens = keep
        self._by_slot[slot] = generation

    def _next_token(self, generation: Generation, token: int, delivery: Delivery) -> None:
        if self._engine.ends(token):
            self._end(generation, "stop", delivery)
            return
        generation.generated += 1
        marker = generation.markers.get(token) if generation.markers else None
        text = generation.text.feed(self._engine.piece(token) if marker is None else marker)
        if text:
            delivery.append((generation, _shown(generation, text)))
        if generation.text.stop is not None:
            self._end(generation, "stop", delivery)
        elif generation.generated >= generation.limit:
            self._end(generation, "length", delivery)
        else:
            self.table.generated(generation.slot, token)

    def _drop(self, condemned: Callable[[Generation], bool]) -> None:
        delivery: Delivery = []
        for generation in [item for item in self._by_slot.values() if condemned(item)]:
            self._end(generation, "cancelled", delivery)
        if delivery:
            self._deliver(delivery)

    def _end(self, generation: Generation, reason: FinishReason, delivery: Delivery) -> None:
        rest = generation.text.finish()
        if rest:
            delivery.append((generation, _shown(generation, rest)))
        del self._by_slot[generation.slot]
        if self._speculation is not None:
            self._speculation.end(generation.slot)
        self.table.release(generation.slot)
        self._engine.finish(generation.slot)
        ending = Ending(reason, generation.generated, generation.cached_tokens, generation.text.stop)
        delivery.append((generation, ending))

    def _score(self, row: int, token: int, most: int) -> TokenScore:
        own, *others = self._engine.scores(row, token, most)
        top = tuple((self._engine.piece(score.token), score.logprob) for score in others)
        return TokenScore(self._engine.piece(token), own.logprob, top)

    def _rewind(self, plan: StepPlan) -> None:
        """Cut the engine's caches back to what the table knows: a step that was broken off is done anew."""
        for index in plan.advances:
            self._cut_back(index)

    def _cut_back(self, index: int) -> None:
        if not self._engine.keep(index, self.table.slots[index].evaluated):
            self.table.forgotten(index)

    def _streams(self) -> list[Stream]:
        """List what generates, for drafts."""
        return [
            Stream(slot, self.table.slots[slot].tokens, generation.limit - generation.generated - 1)
            for slot, generation in self._by_slot.items()
            if self.table.slots[slot].generating
        ]


def _shown(generation: Generation, text: str) -> Event:
    """Give the event for text that may be shown, with the scores of the tokens that it came from, if wished."""
    if generation.scores is None:
        return text
    scored = Scored(text, tuple(generation.unshown))
    generation.unshown.clear()
    return scored
