"""The progress of loading the model, as the loading stream reports it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from rbee.contracts.devices import Backend
from rbee.contracts.models import LoadingProgress
from rbee.errors import RbeeError
from rbee.worker.engine.thread import Progress

POLL_S: Final = 0.05
_MB: Final = 1024 * 1024


class Loading:
    """The loading of one model.

    Args:
        progress: is polled.
        backend: CPU, or a GPU into whose memory the model is loaded.
        model_path: its size is the amount to load.
    """

    def __init__(self, progress: Progress, backend: Backend, model_path: Path) -> None:
        self._progress = progress
        self._on_gpu = backend is not Backend.CPU
        self._finished = asyncio.Event()
        self._error: RbeeError | None = None
        self._ready = False
        self._bytes_total = model_path.stat().st_size if model_path.is_file() else 0

    def stop(self) -> None:
        """Stop the loading at its next step."""
        self._progress.stopped = True

    def finish(self, layers_total: int) -> None:
        """Record that the model is loaded."""
        self._progress.advance(1.0, layers_total)
        self._ready = True
        self._finished.set()

    def fail(self, error: RbeeError) -> None:
        """Record that the model cannot be loaded."""
        self._error = error
        self._finished.set()

    @property
    def current(self) -> LoadingProgress:
        """Return the current progress."""
        share, layers = self._progress.share, self._progress.layers_total
        loaded_mb = int(share * self._bytes_total) // _MB or None
        return LoadingProgress(
            stage="ready" if self._ready else "loading_to_vram" if self._on_gpu else "loading_to_ram",
            layers_loaded=round(share * layers),
            layers_total=layers,
            ram_mb=None if self._on_gpu else loaded_mb,
            vram_mb=loaded_mb if self._on_gpu else None,
        )

    async def follow(self) -> AsyncIterator[LoadingProgress]:
        """Yield each change until the model is ready. Raises RbeeError when it cannot be loaded."""
        reported: LoadingProgress | None = None
        while True:
            finished = self._finished.is_set()
            if self._error is not None:
                raise self._error
            now = self.current
            if now != reported:
                reported = now
                yield now
            if finished:
                return
            try:
                await asyncio.wait_for(self._finished.wait(), POLL_S)
            except TimeoutError:
                continue
