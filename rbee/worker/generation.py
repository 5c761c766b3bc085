"""One generation: the state that the engine's thread and the event loop share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rbee.contracts.tasks import FinishReason
from rbee.errors import RbeeError
from rbee.worker.scheduling.thought import Thought
from rbee.worker.text.detokenizer import IncrementalDetokenizer
from rbee.worker.text.sampling import SamplerChain


@dataclass(frozen=True, slots=True)
class Finished:
    """The regular end of a generation, with its token counts and the stop string that ended it, if any.

    `thought_tokens` are those of the total that were a thought.
    """

    finish_reason: FinishReason
    total_tokens: int
    cached_tokens: int
    stop: str | None = None
    thought_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of the text with its log probability, and the likeliest tokens in its place, as (bytes, logprob)."""

    piece: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


@dataclass(frozen=True, slots=True)
class TextWithLogprobs:
    """Text to show with the log probabilities of its tokens; only for a generation that requested them."""

    text: str
    logprobs: tuple[TokenLogprob, ...]


Event = str | TextWithLogprobs | Finished | RbeeError
"""Text to show, or one of the two ends: finished or failed."""


class Generation:
    """A request with its prompt in tokens and a limit of new tokens that fits the context.

    The event loop creates it, sets `cancelled`, keeps its deadline (`deadline_timer`, and `timeout_error` once that
    has passed) and reads events; the engine's thread owns the rest.

    `evaluated` counts the tokens of the prompt that are in the cache, `device_s` the seconds for which the engine
    computed for it: those of each batch, shared by the rows that each generation had in it.

    Args:
        logprobs: as in `GenerationRequest`.
        markers: special tokens that are shown, with their text.
        thought: follows the thought of the answer, where the model has them.
        after: a generation with the same prompt, submitted just before.
        begun_at: time of the request; like `first_at` (of its first text) and `cancelled_at`, for the metrics only.
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
        logprobs: int | None = None,
        markers: Mapping[int, bytes] | None = None,
        thought: Thought | None = None,
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
        self.logprobs = logprobs
        self.markers = markers
        self.thought = thought
        self.pending_logprobs: list[TokenLogprob] = []
        self.cancelled = False
        self.deadline_timer: asyncio.TimerHandle | None = None
        self.timeout_error: RbeeError | None = None
        self.detokenizer = IncrementalDetokenizer(stops)
        self.slot = -1
        self.cached_tokens = 0
        self.evaluated = 0
        self.generated = 0
        self.drafted = 0
        self.accepted = 0
        self.device_s = 0.0
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def push(self, event: Event) -> None:
        """Add an event and wake the reader; on the event loop only."""
        self._events.append(event)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def next_events(self, timeout_s: float) -> list[Event]:
        """Wait for events and return all there are; none after *timeout_s* seconds of silence."""
        if not self._events:
            loop = asyncio.get_running_loop()
            waiter = self._waiter = loop.create_future()
            timer = loop.call_later(timeout_s, _wake, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
        events = list(self._events)
        self._events.clear()
        return events


def usage_counts(prompt: int, cached: int, answer: int, device_s: float) -> str:
    """Return what a queen is told to count: tokens of the prompt, of these cached, of the answers; microseconds."""
    return f"{prompt} {cached} {answer} {round(device_s * 1_000_000)}"


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
