"""Read the queen's own log, and several logs as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from rbee.contracts.queen import LogLine
from rbee.errors import RbeeError

POLL_S: Final = 0.25
_CHUNK: Final = 256 * 1024


async def own_lines(path: Path, *, last: int, follow: bool) -> AsyncIterator[LogLine]:
    """Give the *last* lines of *path*, then, with *follow*, what is written to it, without end.

    A file that is not there has no lines: a queen under systemd logs to the journal.
    """
    source = path.stem
    lines, position = await asyncio.to_thread(_end_of, path, last)
    for line in lines:
        yield LogLine(source=source, line=line)
    rest = b""
    while follow:
        text = await asyncio.to_thread(_from, path, position)
        position += len(text)
        *complete, rest = (rest + text).split(b"\n")
        for raw in complete:
            yield LogLine(source=source, line=raw.decode("utf-8", "replace"))
        if not text:
            await asyncio.sleep(POLL_S)


async def merged(sources: Sequence[AsyncIterator[LogLine]]) -> AsyncIterator[LogLine]:
    """Give the lines of all *sources* as they come, to the end of the last. Raises what one of them raises."""
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


def _end_of(path: Path, last: int) -> tuple[list[str], int]:
    """Give the last whole lines, and where the next one begins."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - max(last * 400, _CHUNK)))
            text = file.read(size - file.tell())
    except FileNotFoundError:
        return [], 0
    whole, _, rest = text.rpartition(b"\n")
    lines = whole.decode("utf-8", "replace").split("\n") if whole else []
    return (lines[-last:] if last else []), size - len(rest)


def _from(path: Path, position: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(position)
            return file.read(_CHUNK)
    except FileNotFoundError:
        return b""
