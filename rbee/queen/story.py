"""The story of a task or a spawn: what is told of it, and how it is kept for however many clients wait for it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from rbee.contracts.models import DownloadProgress, LoadingProgress
from rbee.contracts.queen import Progress
from rbee.contracts.tasks import Narration, TaskAccepted, TaskPlaced
from rbee.daemonkit.sse import encode

log = logging.getLogger(__name__)
Event = TaskAccepted | TaskPlaced | Narration | Progress
_NAMES: Final[dict[type[Event], str]] = {
    TaskAccepted: "task",
    TaskPlaced: "placed",
    Narration: "narration",
    Progress: "progress",
}


def encoded(event: Event) -> bytes:
    """Write an event as one of a stream."""
    return encode(event, _NAMES[type(event)])


def narration(actor: str, action: str, human: str, emoji: str = "") -> Narration:
    """Make one line of the story, and write it into the log."""
    log.info("narration", extra={"fields": {"actor": actor, "action": action, "human": human}})
    return Narration(actor=actor, action=action, human=human, emoji=emoji)


class Story:
    """What happened so far and what happens next; who joins late hears the narration from the beginning.

    Of progress only the latest counts: a slow listener is not sent what is out of date.
    """

    def __init__(self) -> None:
        self._told: list[Event] = []
        self._progress: Progress | None = None
        self._listeners: set[_Listener] = set()
        self._over = False

    def tell(self, actor: str, action: str, human: str, emoji: str = "") -> None:
        """Add a line of narration."""
        event = narration(actor, action, human, emoji)
        self._told.append(event)
        self._progress = None
        for listener in self._listeners:
            listener.put(event)

    def download(self, progress: DownloadProgress) -> None:
        """Show how far a download is."""
        self._show(Progress(download=progress))

    def loading(self, progress: LoadingProgress) -> None:
        """Show how far a load is."""
        self._show(Progress(loading=progress))

    def end(self) -> None:
        """Let every listener finish."""
        self._over = True
        for listener in self._listeners:
            listener.wake.set()

    async def listen(self) -> AsyncIterator[Event]:
        """Give each event, from the beginning of the story to its end."""
        listener = _Listener()
        for event in self._told:
            listener.put(event)
        if self._progress is not None:
            listener.put(self._progress)
        self._listeners.add(listener)
        try:
            while True:
                while listener.events:
                    yield listener.events.popleft()
                if self._over:
                    return
                listener.wake.clear()
                await listener.wake.wait()
        finally:
            self._listeners.discard(listener)

    def _show(self, progress: Progress) -> None:
        self._progress = progress
        for listener in self._listeners:
            listener.put(progress)


class _Listener:
    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self.wake = asyncio.Event()

    def put(self, event: Event) -> None:
        """Queue an event; progress takes the place of progress that nobody has seen yet."""
        if isinstance(event, Progress) and self.events and isinstance(self.events[-1], Progress):
            self.events.pop()
        self.events.append(event)
        self.wake.set()
