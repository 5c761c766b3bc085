"""Track one download: its progress for those who follow it, whether anybody does, and its outcome for the metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import CatalogEntry, DownloadProgress, Neighbour
from rbee.errors import RbeeError
from rbee.observe import metrics

log = logging.getLogger(__name__)
_SMOOTHING: Final = 0.3


class Download:
    """One download: its latest progress, the task that runs it, and who waits for it.

    `remark` is what whoever waits should know of it, such as the file that was chosen. `source` is the node that it is
    copied from now, None where that is its origin.

    Args:
        grace_s: how long it goes on after the last who waited for it has left.
    """

    def __init__(self, reference: str, clock: Callable[[], float], waits: list[float], *, grace_s: float) -> None:
        self.reference = reference
        self.waits = waits
        self.progress = DownloadProgress(stage="queued")
        self.retries = 0
        self.fetched = False
        self.remark: str | None = None
        self.source: str | None = None
        self.from_origin = False
        self._neighbours: dict[str, Neighbour] = {}
        self._task: asyncio.Task[CatalogEntry] | None = None
        self._clock = clock
        self._changed = asyncio.Event()
        self._counted: tuple[float, int] | None = None
        self._grace_s = grace_s
        self._waiting = 0
        self._abandonment: asyncio.TimerHandle | None = None
        self._canceled: RbeeError | None = None

    def offer(self, neighbours: Iterable[Neighbour], *, origin: bool) -> None:
        """Set the hives that it may be copied from, in the order in which to ask them; of none, those before stay.

        It may go to its origin if one of those who want it allows that.
        """
        self._neighbours = {each.node: each for each in neighbours} or self._neighbours
        self.from_origin = self.from_origin or origin

    def neighbour(self, tried: Collection[str]) -> Neighbour | None:
        """Return the next hive to copy from, none of the nodes *tried*."""
        return next((each for node, each in self._neighbours.items() if node not in tried), None)

    def offered(self, neighbour: Neighbour) -> Neighbour:
        """Return *neighbour* as it was offered last: a later ticket is good for longer."""
        return self._neighbours.get(neighbour.node, neighbour)

    def begin(self, work: Coroutine[Any, Any, CatalogEntry]) -> None:
        """Start *work*, which nobody waits for yet."""
        self._task = asyncio.ensure_future(work)
        # A failure that nobody waits for is logged, and stays in `outcome`.
        self._task.add_done_callback(self._ended)
        self._expect_interest()

    @property
    def running(self) -> bool:
        """Return whether it has not ended."""
        return self._task is not None and not self._task.done()

    @property
    def canceled(self) -> bool:
        """Return whether somebody canceled it, or nobody wanted it any more."""
        return self._canceled is not None

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Count somebody who waits for this download; the last who leaves takes it along, after a grace."""
        self._waiting += 1
        if self._abandonment is not None:
            self._abandonment.cancel()
        try:
            yield
        finally:
            self._waiting -= 1
            self._expect_interest()

    async def settled(self, timeout_s: float | None) -> bool:
        """Wait for the end, *timeout_s* seconds at most; return whether it has ended."""
        assert self._task is not None
        with self.awaited():
            await asyncio.wait({self._task}, timeout=timeout_s)
        return self._task.done()

    async def result(self) -> CatalogEntry:
        """Wait for the end; who cancels the wait only leaves. Raises RbeeError if it failed or was canceled."""
        await self.settled(None)
        return self.outcome()

    def outcome(self) -> CatalogEntry:
        """Return the result of a download that has ended. Raises RbeeError if it failed, or was canceled or stopped."""
        assert self._task is not None
        if self._task.cancelled():
            raise self._canceled or RbeeError(
                ErrorCode.DRAINING,
                f"The hive is stopping; the download of {self.reference} continues when it is requested again.",
            )
        return self._task.result()

    def cancel(self, reason: str) -> None:
        """Stop it, because of *reason*; what was received is kept for a later download of the same."""
        if not self.running or self._canceled is not None:
            return
        self._canceled = RbeeError(
            ErrorCode.CANCELED,
            f"The download of {self.reference} was canceled: {reason}.",
            details={"model": self.reference},
            hint="What was received is kept for a while; the same download, started again, continues there.",
        )
        log.info("download canceled", extra={"fields": {"model": self.reference, "reason": reason}})
        self.stop()

    def stop(self) -> None:
        """Stop it because the hive stops."""
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        """Wait until it has ended, however that was."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def watch(self) -> AsyncGenerator[DownloadProgress, None]:
        """Yield the progress now and whenever it changes, up to `complete`. Raises RbeeError as `outcome` does."""
        assert self._task is not None
        shown: DownloadProgress | None = None
        with self.awaited():
            while True:
                changed = self._changed
                if self.progress is not shown:
                    shown = self.progress
                    yield shown
                elif self._task.done():
                    self.outcome()
                    return
                else:
                    waiting = asyncio.ensure_future(changed.wait())
                    await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
                    waiting.cancel()

    def show(self, progress: DownloadProgress) -> None:
        """Set the progress, with the remark and the source that there are, and wake the watchers."""
        self.progress = progress.model_copy(update={"remark": self.remark, "source": self.source})
        self._changed.set()
        self._changed = asyncio.Event()

    def count(self, have: int, total: int | None) -> None:
        """Set the progress to *have* of *total* bytes; the speed is smoothed over the last few steps."""
        self.fetched = True
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

    def _expect_interest(self) -> None:
        """Cancel the download after the grace, unless somebody waits for it by then."""
        if self._waiting == 0 and self.running:
            loop = asyncio.get_running_loop()
            self._abandonment = loop.call_later(self._grace_s, self.cancel, "nobody waits for it any more")

    def _ended(self, task: asyncio.Task[CatalogEntry]) -> None:
        if self._abandonment is not None:
            self._abandonment.cancel()
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, RbeeError):
            log.error("download failed", extra={"fields": {"code": error.code.value, "reason": error.message}})
        elif error is not None:
            log.error("BUG: a download died", exc_info=error)


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
