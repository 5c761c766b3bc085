"""Write a file whole or not at all: aside, then renamed into its place."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from rbee.config.paths import storage_error


def atomic_write(path: Path, text: str, *, mode: int = 0o600, durable: bool = True, replace: bool = True) -> None:
    """Write *text* as UTF-8 to *path*; a symbolic link stays and what it names is written.

    Args:
        mode: the permission bits of the new file.
        durable: wait until the disk has it; False is for what may be lost in a power cut.
        replace: whether a file that is there is replaced.

    Raises:
        FileExistsError: without *replace*, where there is a file already.
        RbeeError: DISK_FULL or PERMISSION_DENIED.
    """
    target = path.resolve()
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        aside = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), mode)
                file.write(text)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            if replace:
                aside.replace(target)
            else:
                os.link(aside, target)
        finally:
            aside.unlink(missing_ok=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise storage_error(error, path) from error
