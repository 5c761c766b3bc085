"""Watch the files of loaded models: a worker whose model changed on disk is replaced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from rbee.gguf.header import parts_of
from rbee.hive.supervision import Event, ModelChanged

if TYPE_CHECKING:
    from rbee.hive.workers.managed_worker import ManagedWorker

LOOK_S: Final = 0.5
SETTLED_S: Final = 1.0
SETTLE_WITHIN_S: Final = 600.0


class FileState(NamedTuple):
    """A file as it was: which one, how long, and when it was written to."""

    inode: int
    size: int
    modified_ns: int


def look(path: Path) -> tuple[FileState, ...]:
    """Return the files of the model at *path* as they are now; none where one is missing. Blocking."""
    try:
        found = [part.stat() for part in parts_of(path)]
    except OSError:
        return ()
    return tuple(FileState(info.st_ino, info.st_size, info.st_mtime_ns) for info in found)


def is_overwritten(before: tuple[FileState, ...], now: tuple[FileState, ...]) -> bool | None:
    """Return whether a loaded model was written over; False where another took its place, None where it did not change.

    One that was removed has not changed: its worker holds it.
    """
    if not before or not now or before == now:
        return None
    return any(old.inode == new.inode and old != new for old, new in zip(before, now, strict=False))


class ModelFileWatch:
    """Looks at the files of all workers' models, and tells supervision of those that changed.

    Args:
        workers: returns the workers.
        dispatch: takes the events.
    """

    def __init__(self, workers: Callable[[], Iterable[ManagedWorker]], dispatch: Callable[[Event], None]) -> None:
        self._workers = workers
        self._dispatch = dispatch

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            if watched := list(self._workers()):
                await self.check(watched)

    async def check(self, workers: Iterable[ManagedWorker]) -> None:
        """Look once."""
        watched = [(worker.spec.worker_id, Path(worker.spec.model_path), worker.files) for worker in workers]

        def find() -> list[tuple[str, bool]]:
            found = [(worker_id, is_overwritten(before, look(path))) for worker_id, path, before in watched]
            return [(worker_id, overwritten) for worker_id, overwritten in found if overwritten is not None]

        for worker_id, overwritten in await asyncio.to_thread(find):
            self._dispatch(ModelChanged(worker_id, time.monotonic(), overwritten))


async def wait_until_settled(path: Path, loaded: tuple[FileState, ...]) -> None:
    """Wait until nobody writes to the model at *path* any more, ten minutes at most; not where it is as *loaded*."""
    before = await asyncio.to_thread(look, path)
    if before == loaded:
        return
    deadline = time.monotonic() + SETTLE_WITHIN_S
    while time.monotonic() < deadline:
        await asyncio.sleep(SETTLED_S)
        now = await asyncio.to_thread(look, path)
        if now == before:
            return
        before = now
