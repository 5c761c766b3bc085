"""Keep the log files of daemons from filling a disk.

Whoever writes one holds it open for appending (a service manager, a spawner), so it is not renamed: its content is
copied to a file with the ending `.1` and it is cut to nothing. Lines that come between the two steps are lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from pathlib import Path
from typing import Final

from rbee.logfile import ROTATED_SUFFIX

log = logging.getLogger(__name__)
MB: Final = 1_000_000
CHECK_INTERVAL_S: Final = 60.0


async def watch(folder: Path, pattern: str, *, max_mb: int, every_s: float = CHECK_INTERVAL_S) -> None:
    """Look again and again at the files of *folder* that match *pattern*; never ends."""
    while True:
        await asyncio.to_thread(rotate, folder, pattern, max_mb * MB)
        await asyncio.sleep(every_s)


def rotate(folder: Path, pattern: str, max_bytes: int) -> list[Path]:
    """Cut the files that are larger than *max_bytes*, each kept once as it was; give them."""
    rotated = []
    for path in folder.glob(pattern):
        try:
            if path.stat().st_size <= max_bytes:
                continue
            temporary = path.with_name(f".{path.name}{ROTATED_SUFFIX}")
            shutil.copyfile(path, temporary)
            temporary.replace(path.with_name(path.name + ROTATED_SUFFIX))
            os.truncate(path, 0)
        except OSError as error:
            log.warning("log not shortened", extra={"fields": {"path": str(path), "reason": error.strerror}})
            continue
        rotated.append(path)
    return rotated
