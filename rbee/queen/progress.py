"""Report the progress of tasks and of work that several clients may wait for."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from rbee.client.base import OnRetry
from rbee.contracts.models import DownloadProgress, LoadingProgress
from rbee.contracts.queen import Progress
from rbee.contracts.tasks import Fallback, Narration, TaskAccepted, TaskPlaced
from rbee.daemonkit.background import BackgroundTasks
from rbee.daemonkit.errors import internal_error
from rbee.daemonkit.sse import encode
from rbee.errors import RbeeError

log = logging.getLogger(__name__)
R = TypeVar("R")
Event = TaskAccepted | TaskPlaced | Narration | Progress
_NAMES: Final[dict[type[Event], str]] = {
    TaskAccepted: "task",
    TaskPlaced: "placed",
    Narration: "narration",
    Fallback: "narration",
    Progress: "progress",
}


def encode_event(event: Event) -> bytes:
    """Encode an event for a stream."""
    return encode(event, _NAMES[type(event)])


def narration(actor: str, action: str, human: str, emoji: str = "") -> Narration:
    """Build one line of narration, and write it into the log."""
    log.info("narration", extra={"fields": {"actor": actor, "action": action, "human": human}})
    return Narration(actor=actor, action=action, human=human, emoji=emoji)


class ProgressFeed:
    """What happened so far and what happens next; a late subscriber gets the narration from the beginning.

    Of progress only the latest counts: a slow subscriber is not sent what is out of date.
    """

    def __init__(self) -> None:
        self.unwanted = asyncio.Event()
        """Set while nobody waits any more; not before somebody has."""
        self._waiting = 0
        self._history: list[Event] = []
        self._progress: Progress | None = None
        self._subscribers: set[_Subscriber] = set()
        self._over = False

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Count somebody who waits."""
        self._waiting += 1
        self.unwanted.clear()
        try:
            yield
        finally:
            self._waiting -= 1
            if self._waiting == 0:
                self.unwanted.set()

    def narrate(self, actor: str, action: str, human: str, emoji: str = "") -> None:
        """Add a line of narration."""
        self.forward(narration(actor, action, human, emoji))

    def forward(self, event: Event) -> None:
        """Add an event of another feed, which has logged it."""
        if isinstance(event, Progress):
            self._publish(event)
            return
        self._history.append(event)
        self._progress = None
        for subscriber in self._subscribers:
            subscriber.put(event)

    @property
    def download_progress(self) -> DownloadProgress | None:
        """Return the progress of the download that is shown now."""
        return None if self._progress is None else self._progress.download

    def download(self, progress: DownloadProgress) -> None:
        """Publish the progress of a download."""
        self._publish(Progress(download=progress))

    def loading(self, progress: LoadingProgress) -> None:
        """Publish the progress of a load."""
        self._publish(Progress(loading=progress))

    def end(self) -> None:
        """Let every subscriber finish."""
        self._over = True
        for subscriber in self._subscribers:
            subscriber.wake.set()

    async def subscribe(self) -> AsyncIterator[Event]:
        """Yield each event, from the first to the last."""
        subscriber = _Subscriber()
        for event in self._history:
            subscriber.put(event)
        if self._progress is not None:
            subscriber.put(self._progress)
        self._subscribers.add(subscriber)
        try:
            while True:
                while subscriber.events:
                    yield subscriber.events.popleft()
                if self._over:
                    return
                subscriber.wake.clear()
                await subscriber.wake.wait()
        finally:
            self._subscribers.discard(subscriber)

    def _publish(self, progress: Progress) -> None:
        self._progress = progress
        for subscriber in self._subscribers:
            subscriber.put(progress)


class _Subscriber:
    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self.wake = asyncio.Event()

    def put(self, event: Event) -> None:
        """Queue an event; progress replaces progress that was not read yet."""
        if isinstance(event, Progress) and self.events and isinstance(self.events[-1], Progress):
            self.events.pop()
        self.events.append(event)
        self.wake.set()


@dataclass(slots=True)
class DownloadNarrator:
    """Tells what a hive does to have a model; only what it shows says whether it downloads or had it all along."""

    feed: ProgressFeed
    node: str
    shown: str
    remark: str | None = None
    source: str | None = None
    downloads: bool = False
    checks: bool = False

    def tell(self, progress: DownloadProgress) -> None:
        """Tell one step."""
        if progress.remark is not None and progress.remark != self.remark:
            self.remark = progress.remark
            self._narrate("download", progress.remark, "📄")
        if progress.stage == "retrying":
            of = f" {progress.attempt} of {progress.attempts}" if progress.attempt else ""
            self._narrate("retry", f"download attempt{of}: {progress.reason or 'retrying'}", "🔁")
            return
        # A fast one shows nothing but its end.
        if (progress.stage == "downloading" or progress.fetched) and (
            not self.downloads or progress.source != self.source
        ):
            verb = "downloading it" if progress.source is None else f"copying it from {progress.source}"
            first = f"{self.shown} is not in the catalog, {verb}"
            self._narrate("download", f"{self.shown}: {verb}" if self.downloads else first, "📥")
            self.downloads, self.source = True, progress.source
        elif progress.stage == "verifying" and not (self.downloads or self.checks):
            self.checks = True
            self._narrate("catalog", f"comparing the checksum of {self.shown}", "🔎")
        self.feed.download(progress)

    def _narrate(self, step: str, what: str, emoji: str) -> None:
        self.feed.narrate("rbee-hive", step, f"hive {self.node}: {what}", emoji)


def retry_announcer(feed: ProgressFeed, node: str) -> OnRetry:
    """Return a callback that narrates each further attempt to reach a hive."""

    def announce(attempt: int, of: int, why: str) -> None:
        feed.narrate("queen-rbee", "retry", f"hive {node} does not answer ({why}); retry {attempt} of {of}", "🔁")

    return announce


class SharedJob(Generic[R]):
    """Work that any number of clients may wait for, done once (what Go calls singleflight).

    It belongs to the queen: clients that leave do not end it. Work that is for those who wait only looks at
    `ProgressFeed.unwanted`.
    """

    def __init__(self, feed: ProgressFeed) -> None:
        self._feed = feed
        self._result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        # Every client that waited may have left by the time it fails.
        self._result.add_done_callback(lambda result: result.cancelled() or result.exception())

    @property
    def done(self) -> bool:
        """Return whether it has ended."""
        return self._result.done()

    @classmethod
    def start(
        cls,
        background: BackgroundTasks,
        work: Callable[[ProgressFeed], Awaitable[R]],
        *,
        name: str,
        on_end: Callable[[], object] | None = None,
    ) -> SharedJob[R]:
        """Start *work*, which reports its progress to the feed; *on_end* is called at its end, however it ends."""
        job = cls(ProgressFeed())
        background.start(job._run(work, on_end), name=name)
        return job

    @property
    def download(self) -> DownloadProgress | None:
        """Return how far a download is that it waits for."""
        return self._feed.download_progress

    async def events(self) -> AsyncGenerator[Event, None]:
        """Yield the progress from the first event to the last; close it to stop waiting."""
        with self._feed.awaited():
            async for event in self._feed.subscribe():
                yield event

    async def result(self) -> R:
        """Wait for the result. Raises the RbeeError that the work ended with."""
        with self._feed.awaited():
            return await asyncio.shield(self._result)

    async def _run(self, work: Callable[[ProgressFeed], Awaitable[R]], on_end: Callable[[], object] | None) -> None:
        try:
            self._result.set_result(await work(self._feed))
        except RbeeError as error:
            self._result.set_exception(error)
        except Exception:
            log.exception("BUG: shared work failed")
            self._result.set_exception(internal_error())
        finally:
            self._result.cancel()
            if on_end is not None:
                on_end()
            self._feed.end()
