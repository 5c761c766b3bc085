"""The worker as its event loop sees it: state, free slots, requests in and events out, load and end.

The engine's thread reaches it only through `_post`, which hands a call over to the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import SlotInfo, SlotsStatus, WorkerState
from rbee.errors import RbeeError
from rbee.worker import figures
from rbee.worker.batcher import Batcher, Delivery, Embedding
from rbee.worker.checks import check, check_pools, check_slots, check_writes
from rbee.worker.engine.protocol import Engine
from rbee.worker.engine.thread import EngineThread
from rbee.worker.engine_work import EngineWork
from rbee.worker.generation import Ending, Generation
from rbee.worker.loading import Loading
from rbee.worker.prompts import Prompts
from rbee.worker.sampling import MAX_SEED, chain_of
from rbee.worker.settings import WorkerSettings
from rbee.worker.vectors import Vectors
from rbee.worker.wish import Wish

log = logging.getLogger(__name__)
CANCEL_WAIT_S: Final = 5.0
EDGE_READY_AFTER_S: Final = 1.0  # who waited for the model comes first
_PART: Final = "#"  # divides a request's id from the number of the answer, from the second on


class Service:
    """One worker.

    `started_unix` is when it began, in seconds since the epoch; `load_s` is how long the model took to load.

    Args:
        thread: is loading the engine already.
        tell: sends a line to the owner; called at every change of state or free slots.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        thread: EngineThread,
        *,
        tell: Callable[[dict[str, Any]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.started_unix = time.time()
        self.load_s = 0.0
        self.loading = Loading(thread.progress, settings.backend, settings.model_path)
        self.state = WorkerState.LOADING
        self.failure: RbeeError | None = None
        self.ended = asyncio.Event()
        self._tell = tell
        self._clock = clock
        self._last_told: tuple[str, int] | None = None
        self._running: dict[str, Generation] = {}
        self._embedding: set[str] = set()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._idle_since = clock()
        self._engine: Engine | None = None
        self._batcher: Batcher | None = None
        self._prompts: Prompts | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = thread

    # --- the event loop's side ---------------------------------------------------------------------------------

    def attach(self) -> None:
        """Run from now on in the current event loop, and take the engine as soon as it is loaded.

        To be called once the owner knows the port: that is the first line it expects.
        """
        self._loop = asyncio.get_running_loop()
        self._tell_state()
        self._thread.then(EngineWork(self.settings, self._post, self._loaded, self._deliver, self._failed))

    @property
    def slots_available(self) -> int:
        """Count the free slots; none before the model is loaded."""
        return self.settings.slots - self._in_use if self._batcher else 0

    @property
    def _in_use(self) -> int:
        return len(self._running) + len(self._embedding)

    @property
    def context_length(self) -> int:
        """Give the tokens that one slot holds; 0 before the model is loaded."""
        return self._engine.facts.context if self._engine else 0

    def loaded(self) -> tuple[Engine, Prompts]:
        """Give the engine and what makes tokens for it.

        Raises RbeeError WORKER_LOADING before they are there, DRAINING or WORKER_CRASHED after.
        """
        settings = self.settings
        if self.failure is not None:
            raise self.failure
        if self.state in (WorkerState.DRAINING, WorkerState.STOPPING):
            raise RbeeError(ErrorCode.DRAINING, f"Worker {settings.worker_id} is stopping and takes no new work.")
        if self._engine is None or self._prompts is None:
            raise RbeeError(
                ErrorCode.WORKER_LOADING,
                f"Worker {settings.worker_id} is still loading {settings.name}.",
                details=self.loading.last.model_dump(exclude_none=True),
            )
        return self._engine, self._prompts

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

    async def begin(
        self, wishes: Sequence[Wish], request_id: str, *, deadline_s: float | None = None
    ) -> list[Generation]:
        """Start the generations of one request, all or none; what still runs after *deadline_s* ends with an error.

        Raises RbeeError: WORKER_LOADING, DRAINING, WORKER_CRASHED, ALL_SLOTS_BUSY, or INVALID_REQUEST for what cannot
        be, such as a prompt that leaves no room for a token. None of them has cost any computing.
        """
        begun_at = self._clock()
        engine, prompter = self.loaded()
        check_writes(engine, self.settings.name)
        self._check_free(request_id, len(wishes))
        wishes = await check(wishes, engine)
        prompts: dict[int, list[int]] = {}
        for wish in wishes:
            if id(wish.source) not in prompts:
                prompts[id(wish.source)] = await prompter.tokens(wish)
        self.loaded()
        self._check_free(request_id, len(wishes))  # again: a long prompt takes its time
        generations: list[Generation] = []
        readers: dict[int, Generation] = {}
        for number, wish in enumerate(wishes):
            tokens = prompts[id(wish.source)]
            name = request_id if not number else f"{request_id}{_PART}{number}"
            generation = self._start(wish, tokens, name, begun_at=begun_at, after=readers.get(id(tokens)))
            readers.setdefault(id(tokens), generation)
            generations.append(generation)
        if deadline_s is not None:
            for generation in generations:
                generation.expiry = asyncio.get_running_loop().call_later(
                    deadline_s, self._expired, generation, deadline_s
                )
        return generations

    def _expired(self, generation: Generation, deadline_s: float) -> None:
        """End a generation whose time is over; the engine lets go of it within the step that is running."""
        generation.late = RbeeError(
            ErrorCode.REQUEST_TIMEOUT,
            f"The request was not done within its {deadline_s:g} s; {generation.generated} tokens came.",
            details={"tokens": generation.generated, "worker_id": self.settings.worker_id},
        )
        if self._batcher is not None and not generation.cancelled:
            self._batcher.cancel(generation)

    def _start(
        self, wish: Wish, tokens: list[int], request_id: str, *, begun_at: float, after: Generation | None
    ) -> Generation:
        assert self._engine is not None
        assert self._batcher is not None
        room = self.context_length - len(tokens)
        seed = secrets.randbelow(MAX_SEED + 1) if wish.seed is None else wish.seed
        markers = {self._engine.marker(text): text.encode() for text in wish.markers}
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
        self._running[request_id] = generation
        self._quiet.clear()
        self._slots_changed()
        self._batcher.submit(generation)
        return generation

    async def embed(self, texts: Sequence[Wish], request_id: str) -> Vectors:
        """Begin the embeddings of texts, or the ranking of pairs, which take one slot together.

        Raises RbeeError like `begin`, and INVALID_REQUEST where the model was not made for it.
        """
        engine, prompter = self.loaded()
        check_pools(engine, self.settings.name, pairs=texts[0].query is not None)
        await check(texts, engine)
        items = [Embedding(await prompter.tokens(text)) for text in texts]
        self.loaded()
        self._check_free(request_id, 1)
        assert self._batcher is not None
        self._embedding.add(request_id)
        self._quiet.clear()
        self._slots_changed()
        for item in items:
            self._batcher.submit(item)

        def end() -> None:
            self._embedding.discard(request_id)
            self._freed()

        return Vectors(items, end)

    def cancel(self, request_id: str) -> None:
        """Stop the generations of a request within the step that is running; one that is not there is fine."""
        for name, generation in list(self._running.items()):
            if name.partition(_PART)[0] == request_id and self._batcher is not None and not generation.cancelled:
                generation.cancelled_at = self._clock()
                self._batcher.cancel(generation)

    def slots(self) -> SlotsStatus:
        """Describe the slots."""
        slots = [] if self._batcher is None else self._batcher.table.slots
        by_id = dict(self._running)
        return SlotsStatus(
            slots_total=self.settings.slots,
            slots_available=self.slots_available,
            state=self.state,
            slots=[
                SlotInfo(
                    index=slot.index,
                    request_id=slot.request_id if slot.request_id in by_id else None,
                    cached_tokens=slot.evaluated,
                    generated_tokens=by_id[slot.request_id].generated if slot.request_id in by_id else 0,
                )
                for slot in slots
            ],
        )

    async def end(self) -> None:
        """Take no more requests, finish those that run within `drain_s`, cancel the rest, free the model."""
        if self.state is not WorkerState.CRASHED:
            self._set_state(WorkerState.DRAINING)
        self.loading.stop()
        await self._quiet_within(self.settings.drain_s)
        for request_id in [name for name in self._running if _PART not in name]:
            log.warning("cancelled at the end of the drain", extra={"fields": {"request_id": request_id}})
            self.cancel(request_id)
        await self._quiet_within(CANCEL_WAIT_S)
        if self.state is not WorkerState.CRASHED:
            self._set_state(WorkerState.STOPPING)
        if self._batcher is not None:
            self._batcher.stop()
        await asyncio.to_thread(self._thread.join, CANCEL_WAIT_S)

    @property
    def stuck(self) -> bool:
        """Tell whether the engine's thread still lives: then only the end of the process frees its memory."""
        return self._thread.alive

    async def _quiet_within(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._quiet.wait(), seconds)
        except TimeoutError:
            log.warning("requests still run", extra={"fields": {"running": self._in_use}})

    def _check_free(self, request_id: str, wanted: int) -> None:
        if request_id in self._running or request_id in self._embedding:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST, f"A request with the id {request_id} is running already.", param="request_id"
            )
        check_slots(self.settings, self.slots_available, wanted)

    def _slots_changed(self) -> None:
        if self.state in (WorkerState.IDLE, WorkerState.BUSY):
            self.state = WorkerState.IDLE if self.slots_available else WorkerState.BUSY
        self._tell_state()

    def _set_state(self, state: WorkerState) -> None:
        self.state = state
        self._tell_state()

    def _tell_state(self) -> None:
        now = (self.state.value, self.slots_available)
        if now != self._last_told:
            self._last_told = now
            told: dict[str, Any] = {"state": now[0], "slots_total": self.settings.slots, "slots_available": now[1]}
            if self._engine is not None and self._engine.facts.device_bytes is not None:
                told["device_bytes"] = self._engine.facts.device_bytes
            self._tell(told)

    def _deliver(self, delivery: Delivery) -> None:
        for generation, event in delivery:
            if generation.first_at is None:
                generation.first_at = self._clock()
            last = isinstance(event, Ending | RbeeError)
            told = generation.late if last and generation.late is not None else event
            generation.put(told)
            if isinstance(told, Ending | RbeeError):
                figures.ended(generation, told, now=self._clock())
                self._ended(generation)

    def _ended(self, generation: Generation) -> None:
        if generation.expiry is not None:
            generation.expiry.cancel()
        if self._running.pop(generation.request_id, None) is not None:
            self._freed()

    def _freed(self) -> None:
        if not self._in_use:
            self._idle_since = self._clock()
            self._quiet.set()
        self._slots_changed()

    def _loaded(self, engine: Engine, batcher: Batcher, prompts: Prompts) -> None:
        self._engine, self._batcher, self._prompts = engine, batcher, prompts
        self._idle_since = self._clock()
        self.load_s = time.time() - self.started_unix
        self.loading.done(engine.facts.layers)
        log.info(
            "model loaded",
            extra={"fields": {"model": engine.facts.description, "context": engine.facts.context}},
        )
        if self.state is WorkerState.LOADING:
            self._set_state(WorkerState.IDLE)
        asyncio.get_running_loop().call_later(EDGE_READY_AFTER_S, self._begin_edge)

    def _begin_edge(self) -> None:
        """Import what the first request of another people's client would else wait for."""
        # The executor ends with the worker.
        if self.state.serves:
            asyncio.get_running_loop().run_in_executor(None, import_module, "rbee.worker.edge.requests")

    def _failed(self, error: RbeeError, left: list[Generation]) -> None:
        """Tell everybody who waits, and end."""
        if error.code is ErrorCode.CANCELED:
            return
        log.error("the worker cannot go on", extra={"fields": {"code": error.code.value, "reason": error.message}})
        self.failure = error
        self._set_state(WorkerState.CRASHED)
        self.loading.fail(error)
        self._tell(error.body())
        for generation in left:
            self._deliver([(generation, error)])
        self.ended.set()

    # --- the engine's thread -----------------------------------------------------------------------------------

    def _post(self, call: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(call, *arguments)
