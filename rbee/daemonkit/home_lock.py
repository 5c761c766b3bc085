"""Allow one daemon of a kind per home, by a lock that is released when its process exits."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

from rbee.config.paths import Paths, storage_error
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

_POLL_S = 0.05


class HomeLock:
    """The lock of a home for the only *program* in it. Keep a reference: the lock ends with the object.

    The constructor waits for *timeout_s* seconds, because an earlier process may be about to exit.

    Raises:
        RbeeError: ALREADY_RUNNING, with the process that holds the lock; PERMISSION_DENIED or DISK_FULL if the lock
            cannot be made.
    """

    def __init__(self, paths: Paths, program: str, timeout_s: float = 0.0) -> None:
        path = paths.make(paths.run) / f"{program}.lock"
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise storage_error(error, path) from error
        deadline = time.monotonic() + timeout_s
        while not self._try_lock():
            if time.monotonic() >= deadline:
                self._file.seek(0)
                holder = (self._file.read(32) or b"").decode("ascii", "replace").strip() or "unknown"
                self.release()
                raise RbeeError(
                    ErrorCode.ALREADY_RUNNING,
                    f"Another {program} (process {holder}) already uses {paths.home}.",
                    details={"pid": holder, "home": str(paths.home)},
                )
            time.sleep(_POLL_S)
        # Without room for its name it holds all the same, and the daemon may serve those who make room.
        with contextlib.suppress(OSError):
            self._file.truncate(0)
            self._file.write(b"%d\n" % os.getpid())

    def release(self) -> None:
        """Release the lock."""
        self._file.close()

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
