"""Remove what earlier hives of this home left behind: their workers, and the logs of workers long gone."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path

import psutil

from rbee.hive.workers.process import MARK, hive_mark
from rbee.logfile import ROTATED_SUFFIX

log = logging.getLogger(__name__)
TERMINATE_S = 2.0
KEPT_LOGS = 20


def remove_orphans(home: Path) -> list[int]:
    """Stop the workers that carry this home's mark, whatever their name; return their process ids. Blocking."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == hive_mark(home):
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone, or another user's and so not ours
    for process in found:
        _if_alive(process.terminate)
    _, alive = psutil.wait_procs(found, timeout=TERMINATE_S)
    for process in alive:
        _if_alive(process.kill)
    psutil.wait_procs(alive, timeout=TERMINATE_S)
    pids = [int(process.pid) for process in found]
    if pids:
        log.warning("stopped workers of an earlier hive", extra={"fields": {"pids": pids}})
    return pids


def prune_logs(folder: Path, living: Collection[str] = ()) -> None:
    """Remove the logs of workers long gone, all but the newest few, and none of the *living*, by their ids."""
    gone = [path for path in folder.glob("worker-*.log") if path.stem not in living]
    logs = sorted(gone, key=lambda path: path.stat().st_mtime, reverse=True)
    for path in logs[KEPT_LOGS:]:
        for each in (path, path.with_name(path.name + ROTATED_SUFFIX)):
            each.unlink(missing_ok=True)


def _if_alive(act: object) -> None:
    assert callable(act)
    try:
        act()
    except psutil.NoSuchProcess:
        pass
    except psutil.AccessDenied:
        log.warning("an orphaned worker belongs to another user and was left running")
