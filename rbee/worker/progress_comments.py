"""Tell the reader of a silent stream that its request is worked on: a long prompt is read, or text is held back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from rbee.contracts.ids import PROGRESS_COMMENT
from rbee.daemonkit.sse import PING, PING_INTERVAL_S, comment
from rbee.worker.generation import Generation

PROGRESS_INTERVAL_S: Final = 1.0


class ProgressComments:
    """The comments of one stream: one a second at most, however many generations it has.

    What counts is that the engine works: a prompt that waits while others are read is no more stalled than they are.

    Args:
        generations: what the stream waits for.
        progressed_at: returns when the engine last made progress.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        generations: Sequence[Generation],
        progressed_at: Callable[[], float],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._generations = generations
        self._progressed_at = progressed_at
        self._clock = clock
        self._told_at = clock()
        self._told_progress = progressed_at()

    def next(self) -> bytes:
        """Return what to send after a silent interval: progress, a ping where there was none for long, or nothing."""
        now, progress = self._clock(), self._progressed_at()
        # A little less than the interval, because timers come early too.
        if progress > self._told_progress and now - self._told_at >= 0.9 * PROGRESS_INTERVAL_S:
            self._told_at, self._told_progress = now, progress
            return comment(f"{PROGRESS_COMMENT} {self._describe()}")
        if now - self._told_at >= PING_INTERVAL_S:
            self._told_at = now
            return PING
        return b""

    def _describe(self) -> str:
        prompt = sum(len(one.prompt) for one in self._generations)
        evaluated = sum(min(one.evaluated, len(one.prompt)) for one in self._generations)
        generated = sum(one.generated for one in self._generations)
        return f"{evaluated} of {prompt} prompt tokens, {generated} tokens"
