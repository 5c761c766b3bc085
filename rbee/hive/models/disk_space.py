"""Keep a part of the disk free while models are downloaded."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rbee.config.paths import storage_error
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

# A small disk would be all reserve otherwise.
MAX_RESERVED_SHARE: Final = 0.05
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """The space of the file system that a folder lies on, less `reserve_bytes` or 5 % of it, whichever is less."""

    reserve_bytes: int = 0

    def fits(self, folder: Path, needed: int) -> bool:
        """Return whether *needed* more bytes leave the reserve free. Blocking."""
        free, reserve = self._look(folder)
        return needed <= free - reserve

    def check(self, folder: Path, needed: int) -> None:
        """Raise RbeeError DISK_FULL unless *needed* more bytes leave the reserve free. Blocking."""
        if needed > 0 and not self.fits(folder, needed):
            raise self.full(folder, needed)

    def full(self, folder: Path, needed: int) -> RbeeError:
        """Return the error for a disk on which *needed* more bytes have no place."""
        free, reserve = self._look(folder)
        kept = f", of which {-(-reserve // _MIB)} MB stay free (disk_reserve_gb)" if reserve else ""
        return RbeeError(
            ErrorCode.DISK_FULL,
            f"The download needs {-(-needed // _MIB)} MB in {folder}, and {free // _MIB} MB are free{kept}.",
            details={
                "path": str(folder),
                "required_bytes": needed,
                "available_bytes": free,
                "reserved_bytes": reserve,
            },
        )

    def error(self, error: OSError, target: Path, needed: int = 0) -> RbeeError:
        """Return the error for a write that failed; *needed* is how many bytes were still to come."""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return self.full(target.parent, needed)
        return storage_error(error, target)

    @staticmethod
    def usage(folder: Path) -> tuple[int, int]:
        """Return the size of the disk that *folder* is on, or will be, and what is free of it, in bytes."""
        found = shutil.disk_usage(_existing(folder))
        return found.total, found.free

    def _look(self, folder: Path) -> tuple[int, int]:
        place = _existing(folder)
        info = os.statvfs(place)
        reserve = min(self.reserve_bytes, int(info.f_blocks * info.f_frsize * MAX_RESERVED_SHARE))
        return shutil.disk_usage(place).free, reserve


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
