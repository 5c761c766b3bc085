"""The requests that run on a worker: started in free slots, fed with events, finished, cancelled or timed out."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import SlotInfo
from rbee.errors import RbeeError
from rbee.observe import metrics
from rbee.worker.embedding_job import EmbeddingJob
from rbee.worker.engine.protocol import Engine, Grammar
from rbee.worker.generation import Finished, Generation
from rbee.worker.generation_request import GenerationRequest
from rbee.worker.grammars import GrammarCompiler
from rbee.worker.scheduling.batcher import Batcher, Delivery, EmbeddingInput
from rbee.worker.settings import WorkerSettings
from rbee.worker.text.prompts import PromptTokenizer
from rbee.worker.text.sampling import MAX_SEED, build_chain
from rbee.worker.validation import check, require_pooling, require_slots, require_text_model

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
        self, requests: Sequence[GenerationRequest], request_id: str, *, deadline_s: float | None = None
    ) -> list[Generation]:
        """Start the generations of one request, all or none; what still runs after *deadline_s* ends with an error.

        Raises RbeeError before anything is computed: WORKER_LOADING, DRAINING, WORKER_CRASHED, ALL_SLOTS_BUSY, or
        INVALID_REQUEST, such as for a prompt that leaves no room for a token.
        """
        begun_at = self._clock()
        engine, tokenizer = self._require_engine()
        require_text_model(engine, self._settings.name)
        self._check_free(request_id, len(requests))
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
        self._check_free(request_id, len(requests))  # again: a long prompt takes its time
        generations: list[Generation] = []
        first_of: dict[int, Generation] = {}
        for number, request in enumerate(requests):
            tokens = prompts[id(request.source)]
            name = request_id if not number else f"{request_id}{_PART}{number}"
            generation = self._submit(
                request, tokens, name, engine, grammar=grammar, begun_at=begun_at, after=first_of.get(id(tokens))
            )
            first_of.setdefault(id(tokens), generation)
            generations.append(generation)
        if deadline_s is not None:
            for generation in generations:
                generation.deadline_timer = asyncio.get_running_loop().call_later(
                    deadline_s, self._expire, generation, deadline_s
                )
        return generations

    async def embed(self, texts: Sequence[GenerationRequest], request_id: str) -> EmbeddingJob:
        """Start the embeddings of texts, or the ranking of pairs, which take one slot together.

        Raises RbeeError like `start`, and INVALID_REQUEST where the model was not made for it.
        """
        engine, tokenizer = self._require_engine()
        require_pooling(engine, self._settings.name, pairs=texts[0].query is not None)
        check(texts, engine)
        items = [EmbeddingInput(await tokenizer.tokenize(text)) for text in texts]
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
        """Cancel the generations of a request within the current step; return them, none for an unknown id."""
        found = [one for name, one in self._generations.items() if name.partition(_PART)[0] == request_id]
        for generation in found:
            if self._batcher is not None and not generation.cancelled:
                generation.cancelled_at = self._clock()
                self._batcher.cancel(generation)
        return found

    def cancel_all(self) -> None:
        """Cancel all generations, because the time to drain is over."""
        for request_id in [name for name in self._generations if _PART not in name]:
            log.warning("request cancelled: the drain timed out", extra={"fields": {"request_id": request_id}})
            self.cancel(request_id)

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

    def _submit(
        self,
        request: GenerationRequest,
        tokens: list[int],
        request_id: str,
        engine: Engine,
        *,
        grammar: Grammar | None,
        begun_at: float,
        after: Generation | None,
    ) -> Generation:
        assert self._batcher is not None
        room = engine.facts.context - len(tokens)
        seed = secrets.randbelow(MAX_SEED + 1) if request.seed is None else request.seed
        markers = {engine.special_token(text): text.encode() for text in request.markers}
        generation = Generation(
            request_id,
            tokens,
            limit=room if request.limit is None else min(request.limit, room),
            chain=build_chain(request.sampling, seed, bias=request.bias, grammar=grammar),
            seed=seed,
            stops=request.sampling.stop,
            logprobs=request.logprobs,
            markers={token: text for token, text in markers.items() if token is not None},
            begun_at=begun_at,
            after=after,
        )
        self._generations[request_id] = generation
        self._idle.clear()
        self._on_change()
        self._batcher.submit(generation)
        return generation

    def _expire(self, generation: Generation, deadline_s: float) -> None:
        """Time a generation out; the engine releases it within the current step."""
        generation.timeout_error = RbeeError(
            ErrorCode.REQUEST_TIMEOUT,
            f"The request exceeded its deadline of {deadline_s:g} s; {generation.generated} tokens were generated.",
            details={"tokens": generation.generated, "worker_id": self._settings.worker_id},
        )
        if self._batcher is not None and not generation.cancelled:
            self._batcher.cancel(generation)

    def _remove(self, generation: Generation) -> None:
        if generation.deadline_timer is not None:
            generation.deadline_timer.cancel()
        if self._generations.pop(generation.request_id, None) is not None:
            self._note_freed()

    def _note_freed(self) -> None:
        if not self._in_use:
            self._idle_since = self._clock()
            self._idle.set()
        self._on_change()


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
