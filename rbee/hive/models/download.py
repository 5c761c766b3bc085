"""Track the progress of one download for its followers, and its outcome for the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import CatalogEntry, DownloadProgress
from rbee.errors import RbeeError
from rbee.observe import metrics

_SMOOTHING: Final = 0.3


class Download:
    """One download: its latest progress, and the task that runs it."""

    def __init__(self, reference: str, clock: Callable[[], float], waits: list[float]) -> None:
        self.reference = reference
        self.waits = waits
        self.progress = DownloadProgress(stage="queued")
        self.task: asyncio.Task[CatalogEntry] | None = None
        self.retries = 0
        self._clock = clock
        self._changed = asyncio.Event()
        self._counted: tuple[float, int] | None = None

    async def result(self) -> CatalogEntry:
        """Wait for the end; cancelling the wait does not stop the download. Raises RbeeError if it failed."""
        assert self.task is not None
        await asyncio.wait({self.task})
        return self.outcome()

    def outcome(self) -> CatalogEntry:
        """Return the result of a download that has ended. Raises RbeeError if it failed or the hive stopped it."""
        assert self.task is not None
        if self.task.cancelled():
            raise RbeeError(
                ErrorCode.DRAINING,
                f"The hive is stopping; the download of {self.reference} continues when it is requested again.",
            )
        return self.task.result()

    async def watch(self) -> AsyncIterator[DownloadProgress]:
        """Yield the progress now and whenever it changes, up to `complete`. Raises RbeeError if it fails."""
        assert self.task is not None
        shown: DownloadProgress | None = None
        while True:
            changed = self._changed
            if self.progress is not shown:
                shown = self.progress
                yield shown
            elif self.task.done():
                self.outcome()
                return
            else:
                waiting = asyncio.ensure_future(changed.wait())
                await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()

    def show(self, progress: DownloadProgress) -> None:
        """Set the progress and wake the watchers."""
        self.progress = progress
        self._changed.set()
        self._changed = asyncio.Event()

    def count(self, have: int, total: int | None) -> None:
        """Set the progress to *have* of *total* bytes; the speed is smoothed over the last few steps."""
        now = self._clock()
        speed = self.progress.speed_mbps if self.progress.stage == "downloading" else 0.0
        if self._counted is not None and have > self._counted[1] and now > self._counted[0]:
            current = (have - self._counted[1]) * 8 / 1e6 / (now - self._counted[0])
            speed = current if speed == 0.0 else speed + _SMOOTHING * (current - speed)
        self._counted = (now, have)
        self.show(
            DownloadProgress(stage="downloading", bytes_downloaded=have, bytes_total=total, speed_mbps=round(speed, 2))
        )

    def restage(self, **change: object) -> None:
        """Set the stage and keep the bytes."""
        self._counted = None
        base = {"bytes_downloaded": self.progress.bytes_downloaded, "bytes_total": self.progress.bytes_total}
        self.show(DownloadProgress.model_validate({**base, **change}))


@contextmanager
def count_outcome() -> Iterator[None]:
    """Count a download in the metrics, by its outcome."""
    outcome = ErrorCode.INTERNAL.value
    try:
        yield
        outcome = "done"
    except RbeeError as error:
        outcome = error.code.value
        raise
    except asyncio.CancelledError:
        outcome = ErrorCode.CANCELED.value
        raise
    finally:
        metrics.HIVE_DOWNLOADS.add(1, outcome)
