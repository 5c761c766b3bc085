"""The worker as its event loop sees it: its state, what its owner is told of it, how it loads and how it ends.

The requests are with `running`. The engine's thread reaches both only through `_post`, which hands a call over to the
event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import SlotsStatus, WorkerState
from rbee.errors import RbeeError
from rbee.worker.batcher import Batcher
from rbee.worker.engine.protocol import Engine
from rbee.worker.engine.thread import EngineThread
from rbee.worker.engine_work import EngineWork
from rbee.worker.generation import Generation
from rbee.worker.loading import Loading
from rbee.worker.prompts import Prompts
from rbee.worker.running import Running
from rbee.worker.settings import WorkerSettings

log = logging.getLogger(__name__)
CANCEL_WAIT_S: Final = 5.0
EDGE_READY_AFTER_S: Final = 1.0  # who waited for the model comes first


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
        self.running = Running(settings, loaded=self.loaded, on_change=self._slots_changed, clock=clock)
        self.state = WorkerState.LOADING
        self.failure: RbeeError | None = None
        self.ended = asyncio.Event()
        self._tell = tell
        self._last_told: tuple[str, int] | None = None
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
        self._thread.then(EngineWork(self.settings, self._post, self._loaded, self.running.deliver, self._failed))

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

    def slots(self) -> SlotsStatus:
        """Describe the slots."""
        return SlotsStatus(
            slots_total=self.settings.slots,
            slots_available=self.running.slots_available,
            state=self.state,
            slots=self.running.slots(),
        )

    async def end(self) -> None:
        """Take no more requests, finish those that run within `drain_s`, cancel the rest, free the model."""
        if self.state is not WorkerState.CRASHED:
            self._set_state(WorkerState.DRAINING)
        self.loading.stop()
        await self.running.quiet_within(self.settings.drain_s)
        self.running.cancel_all()
        await self.running.quiet_within(CANCEL_WAIT_S)
        if self.state is not WorkerState.CRASHED:
            self._set_state(WorkerState.STOPPING)
        if self._batcher is not None:
            self._batcher.stop()
        await asyncio.to_thread(self._thread.join, CANCEL_WAIT_S)

    @property
    def stuck(self) -> bool:
        """Tell whether the engine's thread still lives: then only the end of the process frees its memory."""
        return self._thread.alive

    def _slots_changed(self) -> None:
        if self.state in (WorkerState.IDLE, WorkerState.BUSY):
            self.state = WorkerState.IDLE if self.running.slots_available else WorkerState.BUSY
        self._tell_state()

    def _set_state(self, state: WorkerState) -> None:
        self.state = state
        self._tell_state()

    def _tell_state(self) -> None:
        now = (self.state.value, self.running.slots_available)
        if now != self._last_told:
            self._last_told = now
            told: dict[str, Any] = {"state": now[0], "slots_total": self.settings.slots, "slots_available": now[1]}
            if self._engine is not None and self._engine.facts.device_bytes is not None:
                told["device_bytes"] = self._engine.facts.device_bytes
            self._tell(told)

    def _loaded(self, engine: Engine, batcher: Batcher, prompts: Prompts) -> None:
        self._engine, self._batcher, self._prompts = engine, batcher, prompts
        self.running.ready(batcher)
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
            self.running.deliver([(generation, error)])
        self.ended.set()

    # --- the engine's thread -----------------------------------------------------------------------------------

    def _post(self, call: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(call, *arguments)
