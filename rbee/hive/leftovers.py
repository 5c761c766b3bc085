"""Remove what an earlier life of this hive left behind, and keep two hives from sharing one home."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Collection
from pathlib import Path

import psutil

from rbee.config.paths import storage_error
from rbee.contracts.errors import ErrorCode
from rbee.daemonkit.log_files import BEFORE
from rbee.errors import RbeeError
from rbee.hive.processes import MARK, mark_of

log = logging.getLogger(__name__)
LOCK_PATIENCE_S = 3.0
TERMINATE_S = 2.0
KEPT_LOGS = 20


class HomeLock:
    """Hold a home for one hive, from `take` to the end of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def take(self, patience_s: float = LOCK_PATIENCE_S) -> None:
        """Take the lock; wait a little, because an earlier hive may be ending just now.

        Raises RbeeError ALREADY_RUNNING with the process that has it, or PERMISSION_DENIED.
        """
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_error(error, self._path) from error
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise self._taken() from error
                time.sleep(0.05)
            else:
                os.ftruncate(self._fd, 0)
                os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
                return

    def _taken(self) -> RbeeError:
        assert self._fd is not None
        pid = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        home = self._path.parent.parent
        return RbeeError(
            ErrorCode.ALREADY_RUNNING,
            f"Another rbee-hive (process {pid}) already uses {home}.",
            details={"home": str(home), "pid": pid},
            hint="Stop that one, or set another RBEE_HOME.",
        )


def remove_leftovers(home: Path) -> list[int]:
    """End the workers that carry this home's mark, whatever their name; give their process ids. Blocking."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark_of(home):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone, or another user's and so not ours
    for process in found:
        _quietly(process.terminate)
    _, alive = psutil.wait_procs(found, timeout=TERMINATE_S)
    for process in alive:
        _quietly(process.kill)
    psutil.wait_procs(alive, timeout=TERMINATE_S)
    pids = [int(process.pid) for process in found]
    if pids:
        log.warning("removed workers of an earlier life", extra={"fields": {"pids": pids}})
    return pids


def prune_logs(folder: Path, living: Collection[str] = ()) -> None:
    """Remove the logs of workers long gone, all but the newest few, and none of the *living*, by their ids."""
    gone = [path for path in folder.glob("worker-*.log") if path.stem not in living]
    logs = sorted(gone, key=lambda path: path.stat().st_mtime, reverse=True)
    for path in logs[KEPT_LOGS:]:
        for each in (path, path.with_name(path.name + BEFORE)):
            each.unlink(missing_ok=True)


def _quietly(act: object) -> None:
    assert callable(act)
    try:
        act()
    except psutil.NoSuchProcess:
        pass
    except psutil.AccessDenied:
        log.warning("a leftover worker belongs to another user")
