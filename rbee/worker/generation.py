"""One request inside the worker: what the engine's thread and the event loop share of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rbee.contracts.tasks import FinishReason
from rbee.errors import RbeeError
from rbee.worker.sampling import SamplerChain
from rbee.worker.text import TextOut


@dataclass(frozen=True, slots=True)
class Ending:
    """The good end of a generation, with its counts of tokens, and the stop string that ended it, if one did."""

    finish_reason: FinishReason
    total_tokens: int
    cached_tokens: int
    stop: str | None = None


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token of the text with its log probability, and those of the likeliest in its place, as (bytes, number)."""

    piece: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


@dataclass(frozen=True, slots=True)
class Scored:
    """Text to show with the scores of its tokens; only of a generation that asked for them."""

    text: str
    scores: tuple[TokenScore, ...]


Event = str | Scored | Ending | RbeeError
"""Text to show, or one of the two ways to end."""


class Generation:
    """A request with its prompt in tokens and a limit of new tokens that fits the context.

    The event loop makes it, sets `cancelled`, keeps its deadline (`expiry`, and `late` once that has passed) and reads
    events; the engine's thread owns the rest.

    Args:
        scores: the scores that are wished for each token, as in `Wish`.
        markers: special tokens that are shown, with their text.
        after: one with the same prompt, begun just before.
        begun_at: when its request came; like `first_at` (of its first text) and `cancelled_at` for the figures only.
    """

    def __init__(
        self,
        request_id: str,
        prompt: list[int],
        *,
        limit: int,
        chain: SamplerChain,
        seed: int,
        stops: Sequence[str],
        scores: int | None = None,
        markers: Mapping[int, bytes] | None = None,
        begun_at: float = 0.0,
        after: Generation | None = None,
    ) -> None:
        self.request_id = request_id
        self.prompt = prompt
        self.limit = limit
        self.chain = chain
        self.seed = seed
        self.after = after
        self.begun_at = begun_at
        self.first_at: float | None = None
        self.cancelled_at: float | None = None
        self.scores = scores
        self.markers = markers
        self.unshown: list[TokenScore] = []
        self.cancelled = False
        self.expiry: asyncio.TimerHandle | None = None
        self.late: RbeeError | None = None
        self.text = TextOut(stops)
        self.slot = -1
        self.cached_tokens = 0
        self.generated = 0
        self.drafted = 0
        self.accepted = 0
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, event: Event) -> None:
        """Add an event and wake the reader; on the event loop only."""
        self._events.append(event)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def take(self, patience_s: float) -> list[Event]:
        """Wait for events and take all there are; none after *patience_s* seconds of silence."""
        if not self._events:
            loop = asyncio.get_running_loop()
            waiter = self._waiter = loop.create_future()
            timer = loop.call_later(patience_s, _wake, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
        events = list(self._events)
        self._events.clear()
        return events


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
