"""The requests that run on a worker: started in free slots, fed with events, finished, cancelled or timed out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import SlotInfo
from rbee.errors import RbeeError
from rbee.observe import metrics
from rbee.worker.chat.prompts import PromptTokenizer
from rbee.worker.embedding_job import EmbeddingJob
from rbee.worker.engine.protocol import Engine
from rbee.worker.generation import Finished, Generation
from rbee.worker.generation_request import GenerationRequest, build_generation
from rbee.worker.grammars import GrammarCompiler
from rbee.worker.scheduling.batcher import Batcher, Delivery, EmbeddingInput
from rbee.worker.settings import WorkerSettings
from rbee.worker.text.constraint import Constraint
from rbee.worker.validation import check, require_pooling, require_slots, require_text_model
from rbee.worker.waiting_prompts import WaitingPrompts

log = logging.getLogger(__name__)
_PART: Final = "#"  # separates a request's id from the number of the answer, from the second on


class ActiveRequests:
    """The requests that run, each in its slots.

    Args:
        require_engine: returns the engine and its tokenizer; raises RbeeError while no request may be started.
        on_change: called when slots have been taken or freed.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        require_engine: Callable[[], tuple[Engine, PromptTokenizer]],
        on_change: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._require_engine = require_engine
        self._on_change = on_change
        self._clock = clock
        self._generations: dict[str, Generation] = {}
        self._embedding: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._idle_since = clock()
        self._batcher: Batcher | None = None
        self._waiting = WaitingPrompts(settings.slots)
        self._grammars = GrammarCompiler()

    def set_batcher(self, batcher: Batcher) -> None:
        """Start to offer the slots of *batcher*."""
        self._batcher = batcher
        self._idle_since = self._clock()

    @property
    def slots_available(self) -> int:
        """Return the number of free slots; 0 before the model is loaded."""
        return self._settings.slots - self._in_use if self._batcher else 0

    @property
    def _in_use(self) -> int:
        return len(self._generations) + len(self._embedding)

    @property
    def idle_s(self) -> float:
        """Return the seconds for which no slot has been in use."""
        return 0.0 if self._in_use else self._clock() - self._idle_since

    def progressed_at(self) -> float:
        """Return when the engine last made progress, in monotonic seconds; 0 before the model is loaded."""
        return self._batcher.progressed_at if self._batcher is not None else 0.0

    @property
    def stalled_s(self) -> float:
        """Return the seconds since the engine last made progress on the requests that run."""
        if not self._in_use or self._batcher is None:
            return 0.0
        return max(0.0, self._clock() - self._batcher.progressed_at)

    def slots(self) -> list[SlotInfo]:
        """Describe the slots."""
        slots = [] if self._batcher is None else self._batcher.table.slots
        by_id = dict(self._generations)
        return [
            SlotInfo(
                index=slot.index,
                request_id=slot.request_id if slot.request_id in by_id else None,
                cached_tokens=slot.evaluated,
                generated_tokens=by_id[slot.request_id].generated if slot.request_id in by_id else 0,
            )
            for slot in slots
        ]

    async def start(
        self,
        requests: Sequence[GenerationRequest],
        request_id: str,
        *,
        each: int | None = None,
        deadline_s: float | None = None,
    ) -> list[Generation]:
        """Start the generations of one request; what still runs after *deadline_s* ends with an error.

        *each* are so many successive ones of the same prompt, None where all are: these start together, unless they
        are more than there are slots. Whatever does not start at once waits for slots.

        Raises RbeeError before anything is computed: WORKER_LOADING, DRAINING, WORKER_CRASHED, ALL_SLOTS_BUSY, or
        context_length_exceeded, or INVALID_REQUEST.
        """
        begun_at = self._clock()
        engine, tokenizer = self._require_engine()
        require_text_model(engine, self._settings.name)
        each = each or len(requests)
        if each > self._settings.slots:
            each = 1
        self._check_free(request_id, each)
        check(requests, engine)
        first = requests[0]
        if first.logprobs is not None:
            await asyncio.to_thread(__import__, "numpy")  # otherwise the engine's thread would import it
        grammar = None if first.constraint is None else await self._grammars.compile(first.constraint, engine)
        prompts: dict[int, list[int]] = {}
        for request in requests:
            if id(request.source) not in prompts:
                prompts[id(request.source)] = await tokenizer.tokenize(request)
        self._require_engine()
        self._check_free(request_id, each)  # again: a long prompt takes its time
        generations: list[Generation] = []
        first_of: dict[int, Generation] = {}
        for number, request in enumerate(requests):
            tokens = prompts[id(request.source)]
            name = request_id if not number else f"{request_id}{_PART}{number}"
            generation = build_generation(
                request, tokens, name, engine, grammar=grammar, begun_at=begun_at, after=first_of.get(id(tokens))
            )
            first_of.setdefault(id(tokens), generation)
            generations.append(generation)
        if deadline_s is not None:
            for generation in generations:
                generation.deadline_timer = asyncio.get_running_loop().call_later(
                    deadline_s, self._expire, generation, deadline_s
                )
        self._submit(generations[:each])
        rest = [generations[at : at + each] for at in range(each, len(generations), each)]
        self._waiting.add(rest, of=len(generations))
        self._submit_waiting()
        return generations

    async def embed(self, texts: Sequence[GenerationRequest], request_id: str) -> EmbeddingJob:
        """Start the embeddings of texts, or the ranking of pairs, which take one slot together.

        Raises RbeeError like `start`, and INVALID_REQUEST where the model was not made for it.
        """
        engine, tokenizer = self._require_engine()
        require_pooling(engine, self._settings.name, pairs=texts[0].query is not None)
        check(texts, engine)
        items = [EmbeddingInput(await tokenizer.tokenize(text, answer=False)) for text in texts]
        self._require_engine()
        self._check_free(request_id, 1)
        assert self._batcher is not None
        self._embedding.add(request_id)
        self._idle.clear()
        self._on_change()
        for item in items:
            self._batcher.submit(item)

        def on_end() -> None:
            self._embedding.discard(request_id)
            self._note_freed()

        return EmbeddingJob(items, on_end)

    def deliver(self, delivery: Delivery) -> None:
        """Pass the events of a step on to their readers, and remove what has ended."""
        for generation, event in delivery:
            if generation.first_at is None:
                generation.first_at = self._clock()
            if not isinstance(event, Finished | RbeeError):
                generation.push(event)
                continue
            end = generation.timeout_error or event
            generation.push(end)
            _count(generation, end, now=self._clock())
            self._remove(generation)

    def cancel(self, request_id: str) -> list[Generation]:
        """Cancel the generations of a request within the current step.

        Returns those that had begun, none for an unknown id.
        """
        for generation in self._waiting.remove(lambda one: _request_of(one.request_id) == request_id):
            _end_waiting(generation, generation.timeout_error or Finished("cancelled", 0, 0))
        found = [one for name, one in self._generations.items() if _request_of(name) == request_id]
        for generation in found:
            if self._batcher is not None and not generation.cancelled:
                generation.cancelled_at = self._clock()
                self._batcher.cancel(generation)
        return found

    def stop_all(self, drain_s: float) -> int:
        """End all generations with an error, because the *drain_s* seconds to drain are over.

        Returns how many requests those are.
        """
        generations = [*self._generations.values(), *self._waiting]
        for generation in generations:
            generation.timeout_error = RbeeError(
                ErrorCode.DRAINING,
                f"Worker {self._settings.worker_id} had to stop, and the request had not ended within {drain_s:g} s; "
                f"{generation.generated} tokens were generated.",
                details={"tokens": generation.generated, "worker_id": self._settings.worker_id},
            )
        request_ids = {_request_of(one.request_id) for one in generations}
        for request_id in request_ids:
            log.warning("request stopped: the drain timed out", extra={"fields": {"request_id": request_id}})
            self.cancel(request_id)
        return len(request_ids)

    def fail(self, error: RbeeError, unfinished: Sequence[Generation]) -> None:
        """End everything with *error*, because the engine cannot go on; *unfinished* is what had begun."""
        for generation in self._waiting.remove(lambda _: True):
            _end_waiting(generation, error)
        self.deliver([(generation, error) for generation in unfinished])

    def unheld(self, constraint: Constraint) -> tuple[str, ...]:
        """Return what of a constraint that was started is left to the model (`GrammarCompiler.unheld`)."""
        return self._grammars.unheld(constraint)

    async def close(self) -> None:
        """End the process that checks grammars."""
        await self._grammars.close()

    async def wait_until_idle(self, seconds: float) -> None:
        """Wait until nothing runs any more, for *seconds* at most."""
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except TimeoutError:
            log.warning("requests still run", extra={"fields": {"running": self._in_use}})

    def _check_free(self, request_id: str, wanted: int) -> None:
        if request_id in self._generations or request_id in self._embedding:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST, f"A request with the id {request_id} is already running.", param="request_id"
            )
        require_slots(self._settings, self.slots_available, wanted)

    def _submit(self, generations: Sequence[Generation]) -> None:
        assert self._batcher is not None
        self._generations.update((generation.request_id, generation) for generation in generations)
        self._idle.clear()
        self._on_change()
        for generation in generations:
            self._batcher.submit(generation)

    def _submit_waiting(self) -> None:
        while generations := self._waiting.take(self.slots_available):
            self._submit(generations)

    def _expire(self, generation: Generation, deadline_s: float) -> None:
        """Time a generation out; the engine releases it within the current step."""
        generation.timeout_error = RbeeError(
            ErrorCode.REQUEST_TIMEOUT,
            f"The request exceeded its deadline of {deadline_s:g} s; {generation.generated} tokens were generated.",
            details={"tokens": generation.generated, "worker_id": self._settings.worker_id},
        )
        if self._waiting.remove(lambda one: one is generation):
            _end_waiting(generation, generation.timeout_error)
        elif self._batcher is not None and not generation.cancelled:
            self._batcher.cancel(generation)

    def _remove(self, generation: Generation) -> None:
        if generation.deadline_timer is not None:
            generation.deadline_timer.cancel()
        if self._generations.pop(generation.request_id, None) is not None:
            self._note_freed()

    def _note_freed(self) -> None:
        self._submit_waiting()
        if not self._in_use:
            self._idle_since = self._clock()
            self._idle.set()
        self._on_change()


def _request_of(name: str) -> str:
    """Return the id of the request that a generation belongs to."""
    return name.partition(_PART)[0]


def _end_waiting(generation: Generation, end: Finished | RbeeError) -> None:
    """End a generation that has not begun."""
    if generation.deadline_timer is not None:
        generation.deadline_timer.cancel()
    generation.push(end)


def _count(generation: Generation, end: Finished | RbeeError, *, now: float) -> None:
    """Record the metrics of a generation that is over; *now* is of the same clock as its times."""
    metrics.WORKER_PROMPT_TOKENS.add(len(generation.prompt))
    metrics.WORKER_CACHED_TOKENS.add(generation.cached_tokens)
    metrics.WORKER_TOKENS.add(generation.generated)
    metrics.WORKER_DRAFTED.add(generation.drafted)
    metrics.WORKER_ACCEPTED.add(generation.accepted)
    metrics.WORKER_GENERATIONS.add(1, "error" if isinstance(end, RbeeError) else end.finish_reason)
    if generation.cancelled_at is not None:
        metrics.WORKER_CANCEL.observe(now - generation.cancelled_at)
    if generation.generated and generation.first_at is not None:
        metrics.WORKER_FIRST_TOKEN.observe(generation.first_at - generation.begun_at)
        if generation.generated > 1:
            metrics.WORKER_PER_TOKEN.observe((now - generation.first_at) / (generation.generated - 1))
