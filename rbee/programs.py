"""Find the programs that belong to this installation, and say why one cannot be started."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError


def find_program(name: str) -> Path | None:
    """Return where the program *name* is: beside the running interpreter, else on PATH; None if it is in neither.

    The folder of the interpreter comes first, because a virtual environment whose programs are called by their path
    need not be on PATH.
    """
    beside = Path(sys.executable).with_name(name)
    if beside.is_file() and os.access(beside, os.X_OK):
        return beside
    found = shutil.which(name)
    return Path(found) if found else None


def require_program(name: str, hint: str | None = None) -> Path:
    """Return where the program *name* is.

    Raises RbeeError WORKER_BINARY_NOT_FOUND, with *hint* on how to install it where it is not there at all.
    """
    found = find_program(name)
    if found is not None:
        return found
    beside = Path(sys.executable).with_name(name)
    if beside.is_file():
        raise RbeeError(
            ErrorCode.WORKER_BINARY_NOT_FOUND,
            f"The program {beside} is not executable.",
            hint=f"Make it executable: chmod +x {beside}",
        )
    raise RbeeError(
        ErrorCode.WORKER_BINARY_NOT_FOUND,
        f"The program {name} is neither in {beside.parent} nor on PATH.",
        hint=hint,
    )


def start_error(program: Path | str, error: OSError, code: ErrorCode = ErrorCode.PERMISSION_DENIED) -> RbeeError:
    """Return the error for a program that the system did not start."""
    hints = {
        errno.EACCES: f"Make it executable (chmod +x {program}), on a file system that is not mounted noexec.",
        errno.ENOEXEC: "It was made for another kind of machine: install rbee again on this one.",
        errno.ENOENT: "Install rbee again: the program, or the Python that its first line names, is gone.",
    }
    return RbeeError(
        code,
        f"{program} could not be started: {error.strerror}.",
        details={"program": str(program)},
        hint=hints.get(error.errno or 0, "Install rbee again."),
    )
