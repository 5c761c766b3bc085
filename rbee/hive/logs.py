"""Read the logs of the hive and its workers, and follow them as they grow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from rbee.contracts.queen import LogLine

POLL_S: Final = 0.25
HIVE_LOG: Final = "rbee-hive.log"
_CHUNK: Final = 256 * 1024


class LogFollower:
    """All log files of a folder that were written to since *since_unix*, line by line."""

    def __init__(self, folder: Path, *, since_unix: float) -> None:
        self._folder = folder
        self._since_unix = since_unix
        self._read_to: dict[Path, int] = {}
        self._rest: dict[Path, bytes] = {}

    async def lines(self, *, last: int, follow: bool) -> AsyncIterator[LogLine]:
        """Give the *last* lines of each file, then, with *follow*, what is written to any of them, without end."""
        for line in await asyncio.to_thread(self._begin, last):
            yield line
        while follow:
            fresh = await asyncio.to_thread(self._read_new)
            for line in fresh:
                yield line
            if not fresh:
                await asyncio.sleep(POLL_S)

    def _files(self) -> list[Path]:
        hive_log = self._folder / HIVE_LOG
        workers = [path for path in self._folder.glob("worker-*.log") if path.stat().st_mtime >= self._since_unix]
        return [*([hive_log] if hive_log.exists() else []), *sorted(workers, key=lambda path: path.stat().st_mtime)]

    def _begin(self, last: int) -> list[LogLine]:
        found = []
        for path in self._files():
            with path.open("rb") as file:
                size = file.seek(0, 2)
                # The log may be huge: only its end is looked at, and lines there are short.
                file.seek(max(size - max(last * 400, _CHUNK), 0))
                text = file.read(size - file.tell())
            self._read_to[path] = size
            complete = text.split(b"\n")
            self._rest[path] = complete.pop()
            found += [_line(path, raw) for raw in (complete[-last:] if last else [])]
        return found

    def _read_new(self) -> list[LogLine]:
        found = []
        for path in self._files():
            position = self._read_to.get(path, 0)
            if path.stat().st_size < position:
                position = 0
                self._rest.pop(path, None)
            with path.open("rb") as file:
                file.seek(position)
                text = file.read(_CHUNK)
            self._read_to[path] = position + len(text)
            complete = (self._rest.get(path, b"") + text).split(b"\n")
            self._rest[path] = complete.pop()
            found += [_line(path, raw) for raw in complete]
        return found


def _line(path: Path, raw: bytes) -> LogLine:
    return LogLine(source=path.stem, line=raw.decode("utf-8", "replace"))
