"""One queen a home: a lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os

from rbee.config.paths import Paths, storage_error
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError


class HomeLock:
    """Hold the home for this process's life. Keep the object: the lock ends with it."""

    def __init__(self, paths: Paths) -> None:
        path = paths.make(paths.run) / "queen-rbee.lock"
        try:
            self._file = path.open("a+", encoding="ascii")
        except OSError as error:
            raise storage_error(error, path) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise RbeeError(
                ErrorCode.ALREADY_RUNNING,
                f"Another queen (process {holder}) already uses {paths.home}.",
                details={"pid": holder, "home": str(paths.home)},
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Let another queen have the home."""
        self._file.close()
