"""Prepare what a daemon writes: folders that only its user can read, and its own log."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from rbee.config.paths import Paths, storage_error
from rbee.observe import log_file, logs
from rbee.observe.redaction import Redactor

_MB: Final = 1_000_000
_UMASK: Final = 0o027


def make_folders(paths: Paths, folders: Iterable[Path]) -> None:
    """Create the home and *folders*, and keep others out of them and of every file that is made from now on.

    Raises RbeeError PERMISSION_DENIED or DISK_FULL.
    """
    os.umask(os.umask(_UMASK) | _UMASK)
    for folder in (paths.home, *folders):
        paths.make(folder)


def configure_log(daemon: str, path: Path, *, level: str, max_mb: int, secrets: Iterable[str]) -> Redactor:
    """Log to *path*, if that is where this daemon logs, else to standard error; return the redactor.

    Raises RbeeError PERMISSION_DENIED or DISK_FULL.
    """
    file = log_file.own_log_file(path, os.environ)
    try:
        return logs.configure(daemon, level=level, secrets=tuple(secrets), file=file, max_bytes=max_mb * _MB)
    except OSError as error:
        raise storage_error(error, file or path) from error
