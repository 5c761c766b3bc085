"""The story of a task or a spawn: narration and progress, for however many clients are waiting for it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator

from rbee.contracts.models import DownloadProgress, LoadingProgress
from rbee.contracts.queen import Progress
from rbee.contracts.tasks import Narration
from rbee.daemonkit.sse import encode

log = logging.getLogger(__name__)


def narration(actor: str, action: str, human: str, emoji: str = "") -> bytes:
    """Write one line of the story as an event, and into the log."""
    log.info("narration", extra={"fields": {"actor": actor, "action": action, "human": human}})
    return encode(Narration(actor=actor, action=action, human=human, emoji=emoji), "narration")


class Story:
    """What happened so far and what happens next; who joins late hears the narration from the beginning.

    Of progress only the latest counts: a slow listener is not sent what is out of date.
    """

    def __init__(self) -> None:
        self._told: list[bytes] = []
        self._progress: bytes | None = None
        self._listeners: set[_Listener] = set()
        self._over = False

    def tell(self, actor: str, action: str, human: str, emoji: str = "") -> None:
        """Add a line of narration."""
        event = narration(actor, action, human, emoji)
        self._told.append(event)
        self._progress = None
        for listener in self._listeners:
            listener.put(event, is_progress=False)

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

    async def listen(self) -> AsyncIterator[bytes]:
        """Give each event, from the beginning of the story to its end."""
        listener = _Listener()
        for event in self._told:
            listener.put(event, is_progress=False)
        if self._progress is not None:
            listener.put(self._progress, is_progress=True)
        self._listeners.add(listener)
        try:
            while True:
                while listener.events:
                    yield listener.events.popleft()[0]
                if self._over:
                    return
                listener.wake.clear()
                await listener.wake.wait()
        finally:
            self._listeners.discard(listener)

    def _show(self, progress: Progress) -> None:
        event = self._progress = encode(progress, "progress")
        for listener in self._listeners:
            listener.put(event, is_progress=True)


class _Listener:
    def __init__(self) -> None:
        self.events: deque[tuple[bytes, bool]] = deque()
        self.wake = asyncio.Event()

    def put(self, event: bytes, *, is_progress: bool) -> None:
        """Queue an event; progress takes the place of progress that nobody has seen yet."""
        if is_progress and self.events and self.events[-1][1]:
            self.events.pop()
        self.events.append((event, is_progress))
        self.wake.set()
