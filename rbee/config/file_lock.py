"""A lock between processes, on a file; it is released when the process that holds it exits.

Uses the standard library only, so that the set-up of a checkout can use it before anything is installed.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rbee.config.paths import storage_error


@contextmanager
def file_lock(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock at *path*, whose folder must exist; wait for it without a time limit.

    Args:
        path: an empty file, created here; it is not removed, because another process may wait for it.
        waiting: called once if another process holds the lock, to inform the user.

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
