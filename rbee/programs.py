"""Find the programs that belong to this installation."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


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
