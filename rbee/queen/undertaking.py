"""Work that belongs to the queen, not to the client that asked for it first: it has a story and a result."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

from rbee.contracts.errors import ErrorCode
from rbee.daemonkit.background import BackgroundTasks
from rbee.errors import RbeeError
from rbee.queen.story import Event, Story

log = logging.getLogger(__name__)
R = TypeVar("R")


class Undertaking(Generic[R]):
    """Something under way that any number of clients may watch; their leaving does not end it."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        # Everybody who waited may have left by the time it fails.
        self._result.add_done_callback(lambda result: result.cancelled() or result.exception())

    @classmethod
    def begin(
        cls,
        background: BackgroundTasks,
        work: Callable[[Story], Awaitable[R]],
        *,
        name: str,
        after: Callable[[], object],
    ) -> Undertaking[R]:
        """Start *work*, which tells its story as it goes; *after* is called at its end, however it ends."""
        undertaking = cls(Story())
        background.start(undertaking._perform(work, after), name=name)
        return undertaking

    def events(self) -> AsyncIterator[Event]:
        """Give the story from its beginning to its end."""
        return self._story.listen()

    async def result(self) -> R:
        """Wait for the result. Raises the RbeeError that it ended in."""
        return await asyncio.shield(self._result)

    async def _perform(self, work: Callable[[Story], Awaitable[R]], after: Callable[[], object]) -> None:
        try:
            self._result.set_result(await work(self._story))
        except RbeeError as error:
            self._result.set_exception(error)
        except Exception:
            log.exception("BUG: an undertaking died")
            self._result.set_exception(RbeeError(ErrorCode.INTERNAL, "Something went wrong inside the queen."))
        finally:
            self._result.cancel()
            after()
            self._story.end()
