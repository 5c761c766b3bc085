"""The embeddings of one request, while the engine's thread computes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.scheduling.batcher import EmbeddingInput


class EmbeddingJob:
    """The texts of one request, which the engine embeds one after the other.

    Args:
        items: the texts, submitted already.
        on_end: called once, when nothing is computed for this request any more.
    """

    def __init__(self, items: Sequence[EmbeddingInput], on_end: Callable[[], None]) -> None:
        self._items = items
        self._on_end = on_end

    @property
    def tokens(self) -> int:
        """Return the number of tokens in all texts."""
        return sum(len(item.tokens) for item in self._items)

    @property
    def device_s(self) -> float:
        """Return for how many seconds the engine has computed."""
        return sum(item.device_s for item in self._items)

    def cancel(self) -> None:
        """Cancel the texts that wait; the one that is being computed is finished."""
        for item in self._items:
            item.vector.cancel()

    async def result(self) -> list[list[float]]:
        """Wait for all vectors and return them. Raises RbeeError CANCELED or WORKER_CRASHED."""
        try:
            return [await asyncio.shield(asyncio.wrap_future(item.vector)) for item in self._items]
        except asyncio.CancelledError:
            if not any(item.vector.cancelled() for item in self._items):
                raise
            raise RbeeError(ErrorCode.CANCELED, "The request was canceled before it was complete.") from None
        finally:
            self.cancel()
            self._on_end()
