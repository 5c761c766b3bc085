"""Write files atomically: to a temporary file, which is then renamed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from rbee.config.paths import storage_error


def atomic_write(path: Path, text: str, *, mode: int = 0o600, durable: bool = True, replace: bool = True) -> None:
    """Write *text* as UTF-8 to *path*; a symbolic link is followed.

    Args:
        mode: the permission bits of the new file.
        durable: wait until the data is on disk; False for files that may be lost in a power cut.
        replace: whether an existing file is replaced.

    Raises:
        FileExistsError: without *replace*, if the file exists.
        RbeeError: DISK_FULL or PERMISSION_DENIED.
    """
    target = path.resolve()
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                os.fchmod(file.fileno(), mode)
                file.write(text)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            if replace:
                temporary.replace(target)
            else:
                os.link(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise storage_error(error, path) from error
