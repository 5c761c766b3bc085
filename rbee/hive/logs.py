"""Read the logs of the hive and its workers, and follow them as they grow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from rbee.contracts.queen import LogLine
from rbee.logfile import LogReader

POLL_S: Final = 0.25
HIVE_LOG: Final = "rbee-hive.log"


class LogFollower:
    """All log files of a folder that were written to since *since_unix*, line by line."""

    def __init__(self, folder: Path, *, since_unix: float) -> None:
        self._folder = folder
        self._since_unix = since_unix
        self._readers: dict[Path, LogReader] = {}

    async def lines(self, *, last: int, follow: bool) -> AsyncIterator[LogLine]:
        """Yield the *last* lines of each file, then, with *follow*, what is written to any of them, without end."""
        for line in await asyncio.to_thread(self._last, last):
            yield line
        while follow:
            new = await asyncio.to_thread(self._read_new)
            for line in new:
                yield line
            if not new:
                await asyncio.sleep(POLL_S)

    def _files(self) -> list[Path]:
        hive_log = self._folder / HIVE_LOG
        workers = [path for path in self._folder.glob("worker-*.log") if path.stat().st_mtime >= self._since_unix]
        return [*([hive_log] if hive_log.exists() else []), *sorted(workers, key=lambda path: path.stat().st_mtime)]

    def _last(self, lines: int) -> list[LogLine]:
        return [LogLine(source=path.stem, line=line) for path in self._files() for line in self._of(path).last(lines)]

    def _read_new(self) -> list[LogLine]:
        return [LogLine(source=path.stem, line=line) for path in self._files() for line in self._of(path).read_new()]

    def _of(self, path: Path) -> LogReader:
        return self._readers.setdefault(path, LogReader(path))
