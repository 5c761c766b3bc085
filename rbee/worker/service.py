"""The life of the worker on its event loop: its state, its reports to the owner, its loading and its shutdown.

Its requests are in `active_requests`. The engine's thread reaches both only through `_post`, which schedules a call on
the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import Capability
from rbee.contracts.workers import SlotsStatus, WorkerState
from rbee.errors import RbeeError
from rbee.worker.active_requests import ActiveRequests
from rbee.worker.capabilities import capabilities_of
from rbee.worker.chat.prompts import PromptTokenizer
from rbee.worker.engine.protocol import Engine, ModelFacts
from rbee.worker.engine.thread import EngineThread
from rbee.worker.engine_loop import EngineLoop
from rbee.worker.generation import Generation
from rbee.worker.loading import Loading
from rbee.worker.scheduling.batcher import Batcher
from rbee.worker.settings import WorkerSettings
from rbee.worker.template_file import check_template

log = logging.getLogger(__name__)
CANCEL_WAIT_S: Final = 5.0


class WorkerService:
    """One worker.

    `started_unix` is the time of its start, in seconds since the epoch; `load_s` is how long the model took to load;
    `capabilities` are none until its chat template was opened; `drain_s` is how long running requests may take to end
    at a shutdown, `requests_stopped` how many then had not.

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
        self.drain_s = settings.drain_s
        self.requests_stopped = 0
        self.loading = Loading(thread.progress, settings.backend, settings.model_path)
        self.requests = ActiveRequests(
            settings, require_engine=self.require_engine, on_change=self._update_slots, clock=clock
        )
        self.state = WorkerState.LOADING
        self.failure: RbeeError | None = None
        self.ended = asyncio.Event()
        self._tell = tell
        self.capabilities: tuple[Capability, ...] = ()
        self._last_report: tuple[object, ...] | None = None
        self._engine: Engine | None = None
        self._batcher: Batcher | None = None
        self._tokenizer: PromptTokenizer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._preparing: asyncio.Future[None] | None = None
        self._thread = thread

    # --- the event loop's side ---------------------------------------------------------------------------------

    def attach(self) -> None:
        """Start to serve in the current event loop, with the engine as soon as it is loaded.

        To be called once the owner knows the port, which is the first line it expects.
        """
        self._loop = asyncio.get_running_loop()
        self._report_state()
        self._thread.then(
            EngineLoop(self.settings, self._post, self._on_loaded, self.requests.deliver, self._on_failure)
        )

    @property
    def facts(self) -> ModelFacts | None:
        """Return the properties of the model; None before it is loaded."""
        return self._engine.facts if self._engine else None

    @property
    def context_length(self) -> int:
        """Return how many tokens one slot holds; 0 before the model is loaded."""
        return self._engine.facts.context if self._engine else 0

    @property
    def warning(self) -> str | None:
        """Return what an operator should know of the loaded model, if anything."""
        return self._tokenizer.warning if self._tokenizer is not None else None

    def require_engine(self) -> tuple[Engine, PromptTokenizer]:
        """Return the engine and its tokenizer.

        Raises RbeeError WORKER_LOADING before the model is loaded, DRAINING or WORKER_CRASHED at the worker's end.
        """
        settings = self.settings
        if self.failure is not None:
            raise self.failure
        if self.state in (WorkerState.DRAINING, WorkerState.STOPPING):
            raise RbeeError(ErrorCode.DRAINING, f"Worker {settings.worker_id} is stopping and accepts no new requests.")
        if self._engine is None or self._tokenizer is None:
            raise RbeeError(
                ErrorCode.WORKER_LOADING,
                f"Worker {settings.worker_id} is still loading {settings.name}.",
                details=self.loading.current.model_dump(exclude_none=True),
            )
        return self._engine, self._tokenizer

    def slots(self) -> SlotsStatus:
        """Return the state of the slots."""
        return SlotsStatus(
            slots_total=self.settings.slots,
            slots_available=self.requests.slots_available,
            state=self.state,
            slots=self.requests.slots(),
        )

    async def end(self) -> None:
        """Refuse new requests, let the running ones finish within `drain_s`, cancel the rest, free the model."""
        if self.state is not WorkerState.CRASHED:
            self._set_state(WorkerState.DRAINING)
        self.loading.stop()
        await self.requests.wait_until_idle(self.drain_s)
        self.requests_stopped = self.requests.stop_all(self.drain_s)
        if self.requests_stopped:
            self._tell({"requests_stopped": self.requests_stopped})
        await self.requests.wait_until_idle(CANCEL_WAIT_S)
        if self.state is not WorkerState.CRASHED:
            self._set_state(WorkerState.STOPPING)
        if self._batcher is not None:
            self._batcher.stop()
        if self._tokenizer is not None:
            await self._tokenizer.close()
        await self.requests.close()
        await asyncio.to_thread(self._thread.join, CANCEL_WAIT_S)

    @property
    def stuck(self) -> bool:
        """Return whether the engine's thread still runs: then only the end of the process frees its memory."""
        return self._thread.alive

    def _update_slots(self) -> None:
        if self.state in (WorkerState.IDLE, WorkerState.BUSY):
            self.state = WorkerState.IDLE if self.requests.slots_available else WorkerState.BUSY
        self._report_state()

    def _set_state(self, state: WorkerState) -> None:
        self.state = state
        self._report_state()

    def _report_state(self) -> None:
        state, available = self.state.value, self.requests.slots_available
        if (state, available, self.capabilities) != self._last_report:
            self._last_report = (state, available, self.capabilities)
            report: dict[str, Any] = {
                "state": state,
                "slots_total": self.settings.slots,
                "slots_available": available,
                "capabilities": self.capabilities,
            }
            if self._engine is not None and self._engine.facts.device_bytes is not None:
                report["device_bytes"] = self._engine.facts.device_bytes
            if self.warning is not None:
                report["warning"] = self.warning
            self._tell(report)

    def _on_loaded(self, engine: Engine, batcher: Batcher, tokenizer: PromptTokenizer) -> None:
        self._engine, self._batcher, self._tokenizer = engine, batcher, tokenizer
        self.requests.set_batcher(batcher)
        log.info(
            "model loaded",
            extra={"fields": {"model": engine.facts.description, "context": engine.facts.context}},
        )
        if tokenizer.warning is not None:
            log.warning(tokenizer.warning)
        if engine.facts.embedding:  # which says it all
            self.capabilities = capabilities_of(engine.facts, {})
        if self.settings.chat_template_file is None:
            self._serve(engine)
        self._preparing = asyncio.ensure_future(self._prepare(engine, tokenizer))

    async def _prepare(self, engine: Engine, tokenizer: PromptTokenizer) -> None:
        """Open the chat template before the first request, and report what the model can do.

        Where the operator gave it, an error ends the worker; else it is reported to each request that needs it.
        """
        file = self.settings.chat_template_file
        description: dict[str, Any] = {}
        try:
            if file is not None:
                await check_template(tokenizer, file)
            description = await tokenizer.description()
        except RbeeError as error:
            if file is not None:
                self._on_failure(error, [])
                return
        self.capabilities = capabilities_of(engine.facts, description)
        if file is not None:
            self._serve(engine)
        self._report_state()

    def _serve(self, engine: Engine) -> None:
        """Report that the worker is ready."""
        self.load_s = time.time() - self.started_unix
        self.loading.finish(engine.facts.layers)
        if self.state is WorkerState.LOADING:
            self._set_state(WorkerState.IDLE)

    def _on_failure(self, error: RbeeError, unfinished: list[Generation]) -> None:
        """Report the error to the owner and to all who wait, and end."""
        if error.code is ErrorCode.CANCELED:
            return
        log.error("the worker cannot go on", extra={"fields": {"code": error.code.value, "reason": error.message}})
        self.failure = error
        self._set_state(WorkerState.CRASHED)
        self.loading.fail(error)
        self._tell(error.body())
        self.requests.fail(error, unfinished)
        self.ended.set()

    # --- the engine's thread -----------------------------------------------------------------------------------

    def _post(self, call: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(call, *arguments)
