"""The loop of the engine's thread: admit requests, plan batches, evaluate them, deliver the tokens, repeat."""

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
from rbee.worker.engine.protocol import NO_TOKEN, Engine, EngineFailedError
from rbee.worker.generation import Event, Finished, Generation, TextWithLogprobs, TokenLogprob
from rbee.worker.scheduling.prefill_budget import PrefillBudget
from rbee.worker.scheduling.slots import SlotTable, StepPlan
from rbee.worker.scheduling.speculation import Speculation, Stream


@dataclass(slots=True)
class EmbeddingInput:
    """A text to embed; a caller that no longer needs `vector` cancels it. `device_s` is what the engine took."""

    tokens: list[int]
    vector: Future[list[float]] = field(default_factory=Future)
    device_s: float = 0.0


Delivery = list[tuple[Generation, Event]]


class Batcher:
    """Continuous batching over one engine.

    `run` belongs to the engine's thread; every other method may be called from any thread.

    Args:
        deliver: receives the events of a whole step at once, on the engine's thread.
        prompt_batch: maximum of prompt tokens in one round; running streams wait that long for their next token,
            except for prompts that take more than one round: a `PrefillBudget` limits those.
        speculate: maximum of drafted tokens in one batch; 0 unless the engine can rewind.
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
        self.table: Final = SlotTable(
            slots, engine.facts.context, chunk=engine.chunk_tokens, copies=engine.can_copy, tiles=engine.tiles
        )
        self._engine = engine
        self._prompt_batch = prompt_batch
        self._prefill_budget = PrefillBudget(prompt_batch)
        self._speculation = Speculation(speculate) if speculate else None
        self._deliver = deliver
        self._inbox: queue.SimpleQueue[Generation | EmbeddingInput | None] = queue.SimpleQueue()
        self._by_slot: dict[int, Generation] = {}
        self._held: list[Generation] = []  # until another with the same prompt has evaluated it: then it is copied
        self._stopping = False
        self.progressed_at = time.monotonic()

    def submit(self, item: Generation | EmbeddingInput) -> None:
        """Start a generation or an embedding; the caller knows that a slot is free."""
        self._inbox.put(item)

    def cancel(self, generation: Generation) -> None:
        """End a generation within the current step."""
        generation.cancelled = True
        if generation.generated == 0:  # its prompt may be a long batch: interrupt it
            self._engine.interrupt()

    def stop(self) -> None:
        """End `run` after the current step; generations that still run are cancelled."""
        self._inbox.put(None)

    def run(self) -> None:
        """Process requests until `stop`. Raises EngineFailedError; `unfinished` then returns the requests left."""
        while not self._stopping:
            self._step()
        for generation in self._held:
            self._admit(generation)
        self._cancel_where(lambda _: True)

    def unfinished(self) -> list[Generation]:
        """Return the generations that have a slot or wait for one; cancel the embeddings that wait."""
        waiting = []
        while not self._inbox.empty():
            waiting.append(self._inbox.get_nowait())
        for item in waiting:
            if isinstance(item, EmbeddingInput):
                item.vector.cancel()
        queued = (item for item in waiting if isinstance(item, Generation))
        return [*self._by_slot.values(), *self._held, *queued]

    def _step(self) -> None:
        self._engine.resume()
        self._receive()
        self._cancel_where(lambda generation: generation.cancelled)
        drafts = self._speculation.drafts(self._streams()) if self._speculation is not None else None
        streams_s = prompts_s = 0.0
        prompt_tokens = 0
        for plan in self.table.plan(self._prompt_batch, drafts, long_prompt_tokens=self._prefill_budget.tokens):
            is_prompt = not self.table.slots[plan.slots[0]].generating
            began = time.monotonic()
            tokens = self._engine.step(plan)
            elapsed = time.monotonic() - began
            self._share_time(plan, elapsed)
            if tokens is None:
                self._rewind(plan)
                return
            if is_prompt:
                prompts_s, prompt_tokens = prompts_s + elapsed, prompt_tokens + len(plan.tokens)
            else:
                streams_s = elapsed
            self._process_tokens(plan, tokens, is_prompt=is_prompt)
        self._prefill_budget.record_round(streams_s, prompts_s, prompt_tokens)

    def _share_time(self, plan: StepPlan, elapsed: float) -> None:
        """Share the seconds of a batch among its generations by the rows that each had in it."""
        of_a_row = elapsed / len(plan.slots)
        for index, rows in plan.advances.items():
            self._by_slot[index].device_s += of_a_row * (rows + len(plan.drafts.get(index, ())))

    def _process_tokens(self, plan: StepPlan, tokens: list[int], *, is_prompt: bool) -> None:
        self.table.record_evaluated(plan)
        self.progressed_at = time.monotonic()
        if is_prompt:
            for index in plan.advances:
                self._by_slot[index].evaluated = self.table.slots[index].evaluated
        delivery: Delivery = []
        for row, token in zip(plan.outputs, tokens, strict=True):
            generation = self._by_slot[plan.slots[row]]
            self._process_token(generation, row, token, delivery)
            if plan.drafts:
                self._verify_draft(generation, plan.drafts.get(generation.slot, ()), row, token, delivery)
        if delivery:
            self._deliver(delivery)

    def _process_token(self, generation: Generation, row: int, token: int, delivery: Delivery) -> None:
        if token == NO_TOKEN:
            self._fail(generation, delivery)
            return
        if generation.logprobs is not None and not self._engine.is_end(token):
            generation.pending_logprobs.append(self._token_logprob(row, token, generation.logprobs))
        self._append(generation, token, delivery)

    def _verify_draft(
        self, generation: Generation, draft: Sequence[int], row: int, token: int, delivery: Delivery
    ) -> None:
        """Accept the tokens of a draft for as long as the sampler chooses them, and cut the rest out of the cache.

        Each row is sampled only once the token before it is certain, so that penalties, grammar and random state are
        what they would be without a draft.
        """
        slot, accepted = generation.slot, 0
        for drafted in draft:
            if token != drafted:
                break
            accepted += 1
            if self._by_slot.get(slot) is not generation:
                break
            self.table.accept_draft(slot)
            token = self._engine.sample(slot, row + accepted)
            self._process_token(generation, row + accepted, token, delivery)
        generation.drafted += len(draft)
        generation.accepted += accepted
        if self._speculation is not None and self._by_slot.get(slot) is generation:
            self._speculation.record_acceptance(slot, len(draft), accepted)
        self._cut_back(slot)

    def _receive(self) -> None:
        """Admit what was submitted; wait for something if there is nothing else to do."""
        ready = [
            generation for generation in self._held if generation.cancelled or not self._waits_for_prompt(generation)
        ]
        for generation in ready:
            self._held.remove(generation)
            self._admit(generation)
        while not self._by_slot or not self._inbox.empty():
            item = self._inbox.get()
            if item is None:
                self._stopping = True
                return
            if isinstance(item, EmbeddingInput):
                self._embed(item)
            elif self._waits_for_prompt(item):
                self._held.append(item)
            else:
                self._admit(item)

    def _waits_for_prompt(self, generation: Generation) -> bool:
        """Return whether another generation is evaluating the same prompt now, whose cache will be copied."""
        other = generation.after
        if other is None or not self._engine.can_copy:
            return False
        return other.generated == 0 and self._by_slot.get(other.slot) is other

    def _embed(self, item: EmbeddingInput) -> None:
        self.progressed_at = time.monotonic()
        if not item.vector.set_running_or_notify_cancel():
            return
        try:
            vector = self._engine.embed(item.tokens)
            item.device_s = time.monotonic() - self.progressed_at
            item.vector.set_result(vector)
        except EngineFailedError as error:
            item.vector.set_exception(RbeeError(ErrorCode.WORKER_CRASHED, f"The engine failed: {error}."))
            raise

    def _admit(self, generation: Generation) -> None:
        self.progressed_at = time.monotonic()
        assignment = self.table.admit(generation.request_id, generation.prompt)
        if assignment is None:
            raise AssertionError("a request was submitted without a free slot")
        slot, keep = assignment.slot, assignment.keep
        if assignment.copy_from is not None:
            self._engine.copy(assignment.copy_from, slot, keep)
        elif not self._engine.truncate(slot, keep) and keep:
            self.table.discard_cache(slot)
            keep = 0
        self._engine.set_sampler(slot, generation.chain, generation.prompt)
        generation.slot = slot
        generation.cached_tokens = generation.evaluated = keep
        self._by_slot[slot] = generation

    def _append(self, generation: Generation, token: int, delivery: Delivery) -> None:
        if self._engine.is_end(token):
            self._end(generation, "stop", delivery)
            return
        if not generation.limit:  # only its prompt was to be read
            self._end(generation, "length", delivery)
            return
        generation.generated += 1
        marker = generation.markers.get(token) if generation.markers else None
        piece = self._engine.piece(token) if marker is None else marker
        if generation.thought is not None and (closing := generation.thought.feed(piece)):
            self._engine.force(generation.slot, closing)
        text = generation.detokenizer.feed(piece)
        if text:
            delivery.append((generation, _text_event(generation, text)))
        if generation.detokenizer.stop is not None:
            self._end(generation, "stop", delivery)
        elif generation.generated >= generation.limit:
            self._end(generation, "length", delivery)
        else:
            self.table.append_token(generation.slot, token)

    def _cancel_where(self, matches: Callable[[Generation], bool]) -> None:
        delivery: Delivery = []
        for generation in [item for item in self._by_slot.values() if matches(item)]:
            self._end(generation, "cancelled", delivery)
        if delivery:
            self._deliver(delivery)

    def _end(self, generation: Generation, reason: FinishReason, delivery: Delivery) -> None:
        rest = generation.detokenizer.finish()
        if rest:
            delivery.append((generation, _text_event(generation, rest)))
        self._release(generation)
        thought = generation.thought.tokens if generation.thought is not None else 0
        ending = Finished(reason, generation.generated, generation.cached_tokens, generation.detokenizer.stop, thought)
        delivery.append((generation, ending))

    def _fail(self, generation: Generation, delivery: Delivery) -> None:
        """End a generation whose grammar has failed; the others go on."""
        error = RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"The grammar or schema of the answer failed after {generation.generated} tokens: "
            f"{self._engine.grammar_failure(generation.slot)}.",
            hint="Make the grammar less ambiguous, or the schema simpler.",
        )
        self._release(generation)
        delivery.append((generation, error))

    def _release(self, generation: Generation) -> None:
        del self._by_slot[generation.slot]
        if self._speculation is not None:
            self._speculation.end(generation.slot)
        self.table.release(generation.slot)
        self._engine.clear_sampler(generation.slot)

    def _token_logprob(self, row: int, token: int, most: int) -> TokenLogprob:
        own, *others = self._engine.logprobs(row, token, most)
        top = tuple((self._engine.piece(other.token), other.logprob) for other in others)
        return TokenLogprob(self._engine.piece(token), own.logprob, top)

    def _rewind(self, plan: StepPlan) -> None:
        """Cut the engine's caches back to what the table holds: an interrupted step is repeated."""
        for index in plan.advances:
            self._cut_back(index)

    def _cut_back(self, index: int) -> None:
        if not self._engine.truncate(index, self.table.slots[index].evaluated):
            self.table.discard_cache(index)

    def _streams(self) -> list[Stream]:
        """Return the generating slots, for drafts."""
        return [
            Stream(slot, self.table.slots[slot].tokens, generation.limit - generation.generated - 1)
            for slot, generation in self._by_slot.items()
            if self.table.slots[slot].generating
        ]


def _text_event(generation: Generation, text: str) -> Event:
    """Return the event for text that may be shown, with the log probabilities of its tokens if requested."""
    if generation.logprobs is None:
        return text
    event = TextWithLogprobs(text, tuple(generation.pending_logprobs))
    generation.pending_logprobs.clear()
    return event
