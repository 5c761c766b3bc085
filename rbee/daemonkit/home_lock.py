"""Keep a home to one daemon of a kind, by a lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import time

from rbee.config.paths import Paths, storage_error
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

_POLL_S = 0.05


class HomeLock:
    """Hold *paths*' home for this process, as its one *program*. Keep the object: the lock ends with it.

    Waits for *timeout_s* seconds, because an earlier one may be ending just now.

    Raises:
        RbeeError: ALREADY_RUNNING, with the process that has the home; PERMISSION_DENIED or DISK_FULL, the lock
            cannot be written.
    """

    def __init__(self, paths: Paths, program: str, timeout_s: float = 0.0) -> None:
        path = paths.make(paths.run) / f"{program}.lock"
        try:
            self._file = path.open("a+", encoding="ascii")
        except OSError as error:
            raise storage_error(error, path) from error
        deadline = time.monotonic() + timeout_s
        while not self._try_lock():
            if time.monotonic() >= deadline:
                self._file.seek(0)
                holder = self._file.read(32).strip() or "unknown"
                self.release()
                raise RbeeError(
                    ErrorCode.ALREADY_RUNNING,
                    f"Another {program} (process {holder}) already uses {paths.home}.",
                    details={"pid": holder, "home": str(paths.home)},
                )
            time.sleep(_POLL_S)
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def release(self) -> None:
        """Let another one have the home."""
        self._file.close()

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
