"""Manage the PID file of a queen from `daemon start`, and check whether it is stale."""

from __future__ import annotations

from pathlib import Path

from rbee.config.atomic_write import atomic_write
from rbee.config.paths import storage_error


def write(path: Path, pid: int) -> None:
    """Write it whole or not at all."""
    atomic_write(path, f"{pid}\n", durable=False)


def read(path: Path) -> int | None:
    """Return the process id; None without a file, 0 for a file that holds none."""
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(error, path) from error
    return int(text) if text.isdigit() and len(text) < 10 else 0


def remove(path: Path) -> None:
    """Remove it if it is there."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, path) from error


def is_queen(pid: int, program: str) -> bool:
    """Return whether *pid* is alive and runs *program*: the system may have given the number to another process."""
    import psutil

    if pid <= 0:
        return False
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return any(Path(word).name == program for word in process.cmdline()[:3])
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def is_gone(pid: int) -> bool:
    """Return whether a process has ended; a zombie has."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
