"""The log file that a daemon opens, writes and rotates itself, as its own user.

A service manager that wrote it would do so as root, in a folder that the daemon's user may change. Standard output and
standard error are pointed at it too: native code and the interpreter print there.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

from rbee.logfile import ROTATED_SUFFIX

VARIABLE: Final = "RBEE_LOG_FILE"
_MODE: Final = 0o640
_STANDARD_OUTPUT: Final = 1
_STANDARD_ERROR: Final = 2


def own_log_file(path: Path, environ: MutableMapping[str, str]) -> Path | None:
    """Return the file that this daemon has to open: the one that the environment names, or *path* if it prints there.

    The variable is removed: a child has a log of its own. None means to log to standard error.
    """
    named = environ.pop(VARIABLE, None)
    if named:
        return Path(named)
    try:
        printed, file = os.fstat(_STANDARD_ERROR), path.stat()
    except OSError:
        return None
    return path if os.path.samestat(printed, file) else None


class LogFile(logging.Handler):
    """A handler that rotates its file when a line makes it larger than *max_bytes*; one earlier file is kept.

    Raises OSError where the file cannot be opened; a symbolic link is not followed.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        super().__init__()
        self._path = path
        self._max_bytes = max_bytes
        self._open()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            line = self.format(record).encode("utf-8", "replace") + b"\n"
            os.write(_STANDARD_ERROR, line)
            self._size += len(line)
            if self._size > self._max_bytes:
                self._rotate()
        except (OSError, ValueError, TypeError):
            self.handleError(record)

    def _rotate(self) -> None:
        self._path.replace(self._path.with_name(self._path.name + ROTATED_SUFFIX))
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(self._path, flags, _MODE)
        try:
            status = os.fstat(file)
            if status.st_uid == os.geteuid() and stat.S_ISREG(status.st_mode):
                # Whatever the umask is.
                os.fchmod(file, _MODE)
            os.dup2(file, _STANDARD_OUTPUT)
            os.dup2(file, _STANDARD_ERROR)
        finally:
            os.close(file)
        self._size = status.st_size
