"""Rotate the logs of a daemon's children, so that they do not fill the disk.

A child holds its log open for appending and may not be able to make another, so that file is not renamed: its content
is copied to a file with the suffix `.1`, and the file is truncated. Lines written between the two are lost. What a
child logs for strangers is bounded (`rbee.observe.throttle`), so that looking now and then is enough.
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
CHECK_INTERVAL_S: Final = 5.0


async def watch(folder: Path, pattern: str, *, max_mb: int, every_s: float = CHECK_INTERVAL_S) -> None:
    """Rotate the files of *folder* that match *pattern* in an endless loop."""
    while True:
        await asyncio.to_thread(rotate, folder, pattern, max_mb * MB)
        await asyncio.sleep(every_s)


def rotate(folder: Path, pattern: str, max_bytes: int) -> list[Path]:
    """Rotate the files larger than *max_bytes*, keeping one old copy of each; return them."""
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
            log.warning(
                "log file could not be rotated", extra={"fields": {"path": str(path), "reason": error.strerror}}
            )
            continue
        rotated.append(path)
    return rotated
