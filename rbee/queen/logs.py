"""Read the queen's own log, and several logs as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from rbee.contracts.queen import LogLine
from rbee.errors import RbeeError
from rbee.logfile import LogReader

POLL_S: Final = 0.25


async def own_lines(path: Path, *, last: int, follow: bool) -> AsyncIterator[LogLine]:
    """Yield the *last* lines of *path*, then, with *follow*, what is written to it, without end.

    A file that is absent has no lines: a queen under systemd logs to the journal.
    """
    source, reader = path.stem, LogReader(path)
    for line in await asyncio.to_thread(reader.last, last):
        yield LogLine(source=source, line=line)
    while follow:
        new = await asyncio.to_thread(reader.read_new)
        for line in new:
            yield LogLine(source=source, line=line)
        if not new:
            await asyncio.sleep(POLL_S)


async def merged(sources: Sequence[AsyncIterator[LogLine]]) -> AsyncIterator[LogLine]:
    """Yield the lines of all *sources* as they come, to the end of the last. Raises what one of them raises."""
    lines: asyncio.Queue[LogLine | RbeeError | None] = asyncio.Queue(1000)

    async def pump(source: AsyncIterator[LogLine]) -> None:
        try:
            async for line in source:
                await lines.put(line)
        except RbeeError as error:
            await lines.put(error)
        else:
            await lines.put(None)

    pumps = [asyncio.create_task(pump(source)) for source in sources]
    try:
        running = len(pumps)
        while running:
            line = await lines.get()
            if isinstance(line, RbeeError):
                raise line
            if line is None:
                running -= 1
            else:
                yield line
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
