"""The queen's and a hive's logs, followed through a rotation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from rbee.contracts.queen import LogLine
from rbee.daemonkit import log_rotation
from rbee.hive.logs import HIVE_LOG, LogFollower
from rbee.queen.logs import own_lines

Follow = Callable[[Path], AsyncIterator[LogLine]]


def _queen(folder: Path) -> AsyncIterator[LogLine]:
    return own_lines(folder / "queen-rbee.log", last=1, follow=True)


def _hive(folder: Path) -> AsyncIterator[LogLine]:
    return LogFollower(folder, since_unix=0).lines(last=1, follow=True)


@pytest.mark.parametrize(("name", "follow"), [("queen-rbee.log", _queen), (HIVE_LOG, _hive)])
def test_following_goes_on_after_a_rotation(tmp_path: Path, name: str, follow: Follow) -> None:
    """Who follows a log gets every line, also those just before and after its rotation."""
    log = tmp_path / name

    def write(text: str) -> None:
        with log.open("a", encoding="utf-8") as file:
            file.write(text)

    async def run() -> list[str]:
        lines = follow(tmp_path)
        found = [(await anext(lines)).line]
        write("before\n")
        assert log_rotation.rotate(tmp_path, name, max_bytes=4) == [log]
        assert log.stat().st_size == 0
        write("after\n")
        async with asyncio.timeout(10):
            found += [(await anext(lines)).line for _ in range(2)]
            write("later\n")
            found.append((await anext(lines)).line)
        return found

    write("old\nlast\n")

    assert asyncio.run(run()) == ["last", "before", "after", "later"]
