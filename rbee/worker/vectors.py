"""The embeddings of one request, while the engine's thread computes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.batcher import Embedding


class Vectors:
    """What was asked of the engine, one after the other.

    Args:
        items: the texts, submitted already.
        on_end: called once, when nothing is computed for this request any more.
    """

    def __init__(self, items: Sequence[Embedding], on_end: Callable[[], None]) -> None:
        self._items = items
        self._on_end = on_end

    @property
    def tokens(self) -> int:
        """Count the tokens of all texts."""
        return sum(len(item.tokens) for item in self._items)

    def cancel(self) -> None:
        """Have no more computed; the text that is being read is read to its end."""
        for item in self._items:
            item.vector.cancel()

    async def result(self) -> list[list[float]]:
        """Wait for all of them. Raises RbeeError CANCELED or WORKER_CRASHED."""
        try:
            return [await asyncio.shield(asyncio.wrap_future(item.vector)) for item in self._items]
        except asyncio.CancelledError:
            if not any(item.vector.cancelled() for item in self._items):
                raise
            raise RbeeError(ErrorCode.CANCELED, "The request was canceled before its answer was whole.") from None
        finally:
            self.cancel()
            self._on_end()
