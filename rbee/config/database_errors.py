"""Judge why a database refused: a full disk, a right that is missing, another program. None of these is corruption.

The error of the driver is read, by SQLite's numbers and by SQLSTATE, so that no database library is imported here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from rbee.config.paths import NO_SPACE
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

_PRIMARY: Final = 0xFF  # of SQLite's numbers; what is above it says more
_FULL: Final = 13
_BLOCKED: Final = frozenset({5, 6})  # busy, locked
_NO_RIGHT: Final = frozenset({3, 8, 23})  # permission, read-only, authorization
# An input or output failed, the file or one beside it could not be opened: a full disk is a cause of either.
_IO: Final = frozenset({10, 14})
_DISK_FULL_STATE: Final = "53100"
_SPARE_BYTES: Final = 256 * 1024  # with less free, SQLite cannot make its journal and the index beside it


def database_error(error: BaseException | None, name: str, file: Path | None) -> RbeeError | None:
    """Return the error for a database that is sound but could not be used now; None where it may be broken.

    Args:
        error: what the driver raised.
        name: the database, as it is named in the middle of a sentence.
        file: its file, if it is one of SQLite's.
    """
    number = getattr(error, "sqlite_errorcode", None)
    kind = number & _PRIMARY if isinstance(number, int) else None
    subject, details = f"{name[:1].upper()}{name[1:]}", {"database": name}
    if kind == _FULL or getattr(error, "sqlstate", None) == _DISK_FULL_STATE or (kind in _IO and _is_full(file)):
        return RbeeError(ErrorCode.DISK_FULL, f"No space is left for {name}; it is intact.", details=details)
    if kind in _BLOCKED:
        return RbeeError(
            ErrorCode.PERMISSION_DENIED,
            f"{subject} is in use by another program.",
            details=details,
            hint="Stop the program that holds it, then try again.",
        )
    if kind in _NO_RIGHT or kind in _IO:
        return RbeeError(ErrorCode.PERMISSION_DENIED, f"{subject} cannot be used: {error}.", details=details)
    return None


def _is_full(file: Path | None) -> bool:
    if file is None:
        return False
    try:
        info = os.statvfs(file.parent)
    except OSError as error:
        return error.errno in NO_SPACE
    return info.f_bavail * info.f_frsize < _SPARE_BYTES or (info.f_files > 0 and info.f_favail == 0)
