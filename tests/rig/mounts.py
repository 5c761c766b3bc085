"""Know what is mounted on this machine, so that nothing is deleted through a mount."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.rig.commands import RigError, call


def mounts() -> list[tuple[str, Path]]:
    """List everything that is mounted: its source and where it lies."""
    lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    return [(words[0], Path(_plain(words[1]))) for words in (line.split() for line in lines)]


def mounts_below(folder: Path) -> list[Path]:
    """List what is mounted at a folder and below it, the deepest first."""
    return sorted((path for _, path in mounts() if path.is_relative_to(folder)), reverse=True)


def unmount_below(folder: Path) -> None:
    """Unmount everything at a folder and below it. Raises RigError if something resists."""
    for path in mounts_below(folder):
        call("umount", path)


def remove_tree(folder: Path) -> None:
    """Delete a folder that may not be there. Raises RigError, and deletes nothing, if something is mounted in it."""
    if left := mounts_below(folder):
        raise RigError(f"{folder} is not deleted while {left[0]} is mounted")
    if folder.exists():
        shutil.rmtree(folder)


def _plain(path: str) -> str:
    """Take back the octal numbers that the kernel writes for blanks."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)
