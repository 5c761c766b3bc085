"""How far the loading of the model is: written by the engine's thread, read by the loading stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from rbee.contracts.devices import Backend
from rbee.contracts.models import LoadingProgress
from rbee.errors import RbeeError

POLL_S: Final = 0.05
_MB: Final = 1024 * 1024


class Loading:
    """The loading of one model.

    Args:
        backend: says where to.
        model_path: its size is what there is to load.
    """

    def __init__(self, backend: Backend, model_path: Path) -> None:
        self._on_gpu = backend is not Backend.CPU
        self._share = 0.0
        self._stopped = False
        self._finished = asyncio.Event()
        self._error: RbeeError | None = None
        self._ready = False
        self._layers_total = 0
        self._bytes_total = model_path.stat().st_size if model_path.is_file() else 0

    def advance(self, share: float, layers_total: int) -> bool:
        """Take the share that is loaded, 0 to 1, on any thread; gives False when the loading should end."""
        self._layers_total = layers_total
        self._share = share
        return not self._stopped

    def stop(self) -> None:
        """End the loading at its next step."""
        self._stopped = True

    def done(self, layers_total: int) -> None:
        """Take note that the model is loaded."""
        self._layers_total = layers_total
        self._share = 1.0
        self._ready = True
        self._finished.set()

    def fail(self, error: RbeeError) -> None:
        """Take note that the model cannot be loaded."""
        self._error = error
        self._finished.set()

    @property
    def last(self) -> LoadingProgress:
        """Describe the progress now."""
        taken = int(self._share * self._bytes_total) // _MB or None
        return LoadingProgress(
            stage="ready" if self._ready else "loading_to_vram" if self._on_gpu else "loading_to_ram",
            layers_loaded=round(self._share * self._layers_total),
            layers_total=self._layers_total,
            ram_mb=None if self._on_gpu else taken,
            vram_mb=taken if self._on_gpu else None,
        )

    async def follow(self) -> AsyncIterator[LoadingProgress]:
        """Give each change until the model is ready. Raises RbeeError when it cannot be loaded."""
        told: LoadingProgress | None = None
        while True:
            finished = self._finished.is_set()
            if self._error is not None:
                raise self._error
            now = self.last
            if now != told:
                told = now
                yield now
            if finished:
                return
            try:
                await asyncio.wait_for(self._finished.wait(), POLL_S)
            except TimeoutError:
                continue
