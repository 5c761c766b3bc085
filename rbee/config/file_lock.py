"""Take turns with other processes, by a lock in a file that ends with the process that holds it.

Needs the standard library only, so that the set-up of a checkout can use it before anything is installed.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rbee.config.paths import storage_error


@contextmanager
def file_lock(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock at *path*, whose folder must be there; wait for it as long as it takes.

    Args:
        path: an empty file, made here; it stays, because another may wait for it.
        waiting: called once if another process has the turn, so that the person who waits can be told.

    Raises:
        RbeeError: the file cannot be written.
    """
    try:
        file = path.open("w")
    except OSError as error:
        raise storage_error(error, path) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
