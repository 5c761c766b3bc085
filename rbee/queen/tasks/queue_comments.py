"""Send a client whose request waits for a slot its position in the queue."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Final

from rbee.daemonkit.sse import PING_INTERVAL_S
from rbee.queen.relay.response_sink import ResponseSink
from rbee.queen.scheduling.admission_queue import QueueEntry

POSITION_INTERVAL_S: Final = 1.0
_POSITIONS_PER_PING: Final = round(PING_INTERVAL_S / POSITION_INTERVAL_S)


@contextlib.asynccontextmanager
async def queue_comments(sink: ResponseSink, entry: QueueEntry) -> AsyncIterator[None]:
    """Keep a silent stream alive with comments, which tell the position in the queue.

    Most requests are assigned before a first comment is due: they cost a timer and no task.
    """

    async def comment() -> None:
        sent = (0, 0)
        for count in itertools.count(1):
            now = (entry.position, entry.length)
            if entry.length > 1 and now != sent:
                await sink.comment(f"position {entry.position} of {entry.length} in the queue")
                sent = now
            elif count % _POSITIONS_PER_PING == 0:
                await sink.comment("ping")
            await asyncio.sleep(POSITION_INTERVAL_S)

    running: list[asyncio.Task[None]] = []
    timer = asyncio.get_running_loop().call_later(
        POSITION_INTERVAL_S, lambda: running.append(asyncio.create_task(comment(), name="queue comments"))
    )
    try:
        yield
    finally:
        timer.cancel()
        for task in running:
            task.cancel()
        if running:
            await asyncio.gather(*running, return_exceptions=True)
