"""The thread that owns the engine: it starts to load before the rest of the worker is imported."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Literal

from rbee.worker.engine.protocol import Engine, EngineOptions

LoadResult = Engine | Exception
"""The engine, or why it could not be loaded: an RbeeError, or a bug."""


class Progress:
    """The progress of loading; written by the engine's thread, read by any."""

    def __init__(self) -> None:
        self.share = 0.0
        self.layers_total = 0
        self.stopped = False

    def advance(self, share: float, layers_total: int) -> bool:
        """Record the loaded share, 0 to 1; return False when the loading should stop."""
        self.layers_total = layers_total
        self.share = share
        return not self.stopped


class EngineThread:
    """Load an engine, then run with it what `then` was given, all in one thread.

    Args:
        kind: which engine.
        options: how to load.
    """

    def __init__(self, kind: Literal["llama", "fake"], options: EngineOptions) -> None:
        self.progress = Progress()
        self._kind = kind
        self._options = options
        self._work: queue.SimpleQueue[Callable[[LoadResult], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def then(self, work: Callable[[LoadResult], None]) -> None:
        """Call *work* in the thread once the loading is over; the thread ends with it."""
        self._work.put(work)

    def join(self, within_s: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(within_s)

    @property
    def alive(self) -> bool:
        """Return whether the thread still runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        result: LoadResult
        try:
            result = self._load()
        except Exception as error:  # noqa: BLE001 (passed on to the work, which tells bugs apart)
            result = error
        self._work.get()(result)

    def _load(self) -> Engine:
        if self._kind == "fake":
            from rbee.worker.engine import fake

            return fake.load(self._options, self.progress.advance)
        from rbee.worker.engine import llama_load

        return llama_load.load(self._options, self.progress.advance)
