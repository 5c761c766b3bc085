"""The requests that a worker runs: begun in free slots, given what the engine wrote, ended, cancelled or timed out."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import SlotInfo
from rbee.errors import RbeeError
from rbee.worker import figures
from rbee.worker.batcher import Batcher, Delivery, Embedding
from rbee.worker.checks import check, check_pools, check_slots, check_writes
from rbee.worker.engine.protocol import Engine
from rbee.worker.generation import Ending, Generation
from rbee.worker.prompts import Prompts
from rbee.worker.sampling import MAX_SEED, chain_of
from rbee.worker.settings import WorkerSettings
from rbee.worker.vectors import Vectors
from rbee.worker.wish import Wish

log = logging.getLogger(__name__)
_PART: Final = "#"  # divides a request's id from the number of the answer, from the second on


class Running:
    """The requests that run, each in its slots.

    Args:
        loaded: gives the engine and what makes tokens for it; raises RbeeError while nothing may be begun.
        on_change: called when slots have been taken or freed.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        loaded: Callable[[], tuple[Engine, Prompts]],
        on_change: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._loaded = loaded
        self._on_change = on_change
        self._clock = clock
        self._generations: dict[str, Generation] = {}
        self._embedding: set[str] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._idle_since = clock()
        self._batcher: Batcher | None = None

    def ready(self, batcher: Batcher) -> None:
        """Have slots from now on: those of *batcher*."""
        self._batcher = batcher
        self._idle_since = self._clock()

    @property
    def slots_available(self) -> int:
        """Count the free slots; none before the model is loaded."""
        return self._settings.slots - self._in_use if self._batcher else 0

    @property
    def _in_use(self) -> int:
        return len(self._generations) + len(self._embedding)

    @property
    def idle_s(self) -> float:
        """Give the seconds for which no slot has been in use."""
        return 0.0 if self._in_use else self._clock() - self._idle_since

    @property
    def stalled_s(self) -> float:
        """Give the seconds since the engine last got anything done for the requests that run."""
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

    async def begin(
        self, wishes: Sequence[Wish], request_id: str, *, deadline_s: float | None = None
    ) -> list[Generation]:
        """Start the generations of one request, all or none; what still runs after *deadline_s* ends with an error.

        Raises RbeeError: WORKER_LOADING, DRAINING, WORKER_CRASHED, ALL_SLOTS_BUSY, or INVALID_REQUEST for what cannot
        be, such as a prompt that leaves no room for a token. None of them has cost any computing.
        """
        begun_at = self._clock()
        engine, prompter = self._loaded()
        check_writes(engine, self._settings.name)
        self._check_free(request_id, len(wishes))
        wishes = await check(wishes, engine)
        prompts: dict[int, list[int]] = {}
        for wish in wishes:
            if id(wish.source) not in prompts:
                prompts[id(wish.source)] = await prompter.tokens(wish)
        self._loaded()
        self._check_free(request_id, len(wishes))  # again: a long prompt takes its time
        generations: list[Generation] = []
        readers: dict[int, Generation] = {}
        for number, wish in enumerate(wishes):
            tokens = prompts[id(wish.source)]
            name = request_id if not number else f"{request_id}{_PART}{number}"
            generation = self._start(wish, tokens, name, engine, begun_at=begun_at, after=readers.get(id(tokens)))
            readers.setdefault(id(tokens), generation)
            generations.append(generation)
        if deadline_s is not None:
            for generation in generations:
                generation.expiry = asyncio.get_running_loop().call_later(
                    deadline_s, self._expired, generation, deadline_s
                )
        return generations

    async def embed(self, texts: Sequence[Wish], request_id: str) -> Vectors:
        """Begin the embeddings of texts, or the ranking of pairs, which take one slot together.

        Raises RbeeError like `begin`, and INVALID_REQUEST where the model was not made for it.
        """
        engine, prompter = self._loaded()
        check_pools(engine, self._settings.name, pairs=texts[0].query is not None)
        await check(texts, engine)
        items = [Embedding(await prompter.tokens(text)) for text in texts]
        self._loaded()
        self._check_free(request_id, 1)
        assert self._batcher is not None
        self._embedding.add(request_id)
        self._quiet.clear()
        self._on_change()
        for item in items:
            self._batcher.submit(item)

        def end() -> None:
            self._embedding.discard(request_id)
            self._freed()

        return Vectors(items, end)

    def deliver(self, delivery: Delivery) -> None:
        """Hand what a step has given to those who wait for it, and let go of what has ended."""
        for generation, event in delivery:
            if generation.first_at is None:
                generation.first_at = self._clock()
            last = isinstance(event, Ending | RbeeError)
            told = generation.late if last and generation.late is not None else event
            generation.put(told)
            if isinstance(told, Ending | RbeeError):
                figures.ended(generation, told, now=self._clock())
                self._ended(generation)

    def cancel(self, request_id: str) -> None:
        """Stop the generations of a request within the step that is running; one that is not there is fine."""
        for name, generation in list(self._generations.items()):
            if name.partition(_PART)[0] == request_id and self._batcher is not None and not generation.cancelled:
                generation.cancelled_at = self._clock()
                self._batcher.cancel(generation)

    def cancel_all(self) -> None:
        """Stop all generations, because the time for a kind end is over."""
        for request_id in [name for name in self._generations if _PART not in name]:
            log.warning("cancelled at the end of the drain", extra={"fields": {"request_id": request_id}})
            self.cancel(request_id)

    async def quiet_within(self, seconds: float) -> None:
        """Wait until nothing runs any more, so long at most."""
        try:
            await asyncio.wait_for(self._quiet.wait(), seconds)
        except TimeoutError:
            log.warning("requests still run", extra={"fields": {"running": self._in_use}})

    def _check_free(self, request_id: str, wanted: int) -> None:
        if request_id in self._generations or request_id in self._embedding:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST, f"A request with the id {request_id} is running already.", param="request_id"
            )
        check_slots(self._settings, self.slots_available, wanted)

    def _start(
        self,
        wish: Wish,
        tokens: list[int],
        request_id: str,
        engine: Engine,
        *,
        begun_at: float,
        after: Generation | None,
    ) -> Generation:
        assert self._batcher is not None
        room = engine.facts.context - len(tokens)
        seed = secrets.randbelow(MAX_SEED + 1) if wish.seed is None else wish.seed
        markers = {engine.marker(text): text.encode() for text in wish.markers}
        generation = Generation(
            request_id,
            tokens,
            limit=room if wish.limit is None else min(wish.limit, room),
            chain=chain_of(wish.sampling, seed, bias=wish.bias, grammar=wish.grammar),
            seed=seed,
            stops=wish.sampling.stop,
            scores=wish.scores,
            markers={token: text for token, text in markers.items() if token is not None},
            begun_at=begun_at,
            after=after,
        )
        self._generations[request_id] = generation
        self._quiet.clear()
        self._on_change()
        self._batcher.submit(generation)
        return generation

    def _expired(self, generation: Generation, deadline_s: float) -> None:
        """End a generation whose time is over; the engine lets go of it within the step that is running."""
        generation.late = RbeeError(
            ErrorCode.REQUEST_TIMEOUT,
            f"The request was not done within its {deadline_s:g} s; {generation.generated} tokens came.",
            details={"tokens": generation.generated, "worker_id": self._settings.worker_id},
        )
        if self._batcher is not None and not generation.cancelled:
            self._batcher.cancel(generation)

    def _ended(self, generation: Generation) -> None:
        if generation.expiry is not None:
            generation.expiry.cancel()
        if self._generations.pop(generation.request_id, None) is not None:
            self._freed()

    def _freed(self) -> None:
        if not self._in_use:
            self._idle_since = self._clock()
            self._quiet.set()
        self._on_change()
