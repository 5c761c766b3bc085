"""Give each worker a control group of its own with a limit of memory, where the hive has been delegated one.

That is so under systemd with `Delegate=` and control groups of version 2. Elsewhere supervision bounds what a worker
holds, at its health checks: slower than the kernel, and only its resident memory.
The kernel allows no processes in a group that hands out controllers: the hive first moves into a group beside those of
its workers.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)
ROOT: Final = Path("/sys/fs/cgroup")
_OWN: Final = "hive"
_MAX_PROCESSES: Final = 1024  # and threads: llama.cpp has one for each core, a GPU's driver some more
_MB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """The control group of one worker, limited to *limit_bytes* of memory."""

    folder: Path
    limit_bytes: int

    def ran_out(self) -> str | None:
        """Return in words that the kernel ended the worker for its memory; None if it did not."""
        with contextlib.suppress(OSError, ValueError):
            events = dict(line.split() for line in (self.folder / "memory.events").read_text().splitlines())
            if int(events.get("oom_kill", 0)):
                return f"it needed more than the {self.limit_bytes // _MB} MB of memory that it may hold"
        return None

    def remove(self) -> None:
        """Remove the group of a worker that has ended; one that somebody still uses stays."""
        with contextlib.suppress(OSError):
            self.folder.rmdir()


class ControlGroups:
    """The control groups of this hive's workers; without a *folder* there are none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @classmethod
    def open(cls, root: Path = ROOT, process: Path = Path("/proc/self")) -> ControlGroups:
        """Take over the group that was delegated to this process, if one was; say in the log if none was."""
        try:
            return cls(_delegated(root, process))
        except OSError as error:
            log.info("workers have no control groups of their own", extra={"fields": {"reason": _why(error)}})
            return cls(None)

    def admit(self, worker_id: str, pid: int, limit_bytes: int) -> ControlGroup | None:
        """Put a worker's process into a group of its own; None where it cannot have one, which is logged."""
        if self._folder is None:
            return None
        group = ControlGroup(self._folder / worker_id, limit_bytes)
        try:
            group.folder.mkdir(exist_ok=True)
            (group.folder / "memory.max").write_text(str(limit_bytes))
            (group.folder / "memory.oom.group").write_text("1")
            (group.folder / "pids.max").write_text(str(_MAX_PROCESSES))
            (group.folder / "cgroup.procs").write_text(str(pid))
        except ProcessLookupError:  # it has ended already
            group.remove()
            return None
        except OSError as error:
            fields = {"worker_id": worker_id, "reason": _why(error)}
            log.warning("a worker has no control group of its own", extra={"fields": fields})
            group.remove()
            return None
        return group


def _delegated(root: Path, process: Path) -> Path:
    """Move this process into a group of its own below the one it is in, and return the latter.

    Raises OSError where it is not ours, or has no controller of memory.
    """
    entries = (process / "cgroup").read_text().splitlines()
    path = next((entry.removeprefix("0::") for entry in entries if entry.startswith("0::")), None)
    if path is None or len(entries) > 1:
        raise FileNotFoundError(f"the control groups of this machine are not those of version 2, below {root}")
    folder = root / path.lstrip("/")
    if folder == root:
        raise FileNotFoundError("this process is in no control group")
    if "memory" not in (folder / "cgroup.controllers").read_text().split():
        raise FileNotFoundError(f"no controller of memory was delegated to {folder}")
    own = folder / _OWN
    own.mkdir(exist_ok=True)
    for pid in (folder / "cgroup.procs").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            (own / "cgroup.procs").write_text(pid)
    (folder / "cgroup.subtree_control").write_text("+memory +pids")
    # What an earlier life of this hive left.
    for group in folder.iterdir():
        if group.is_dir() and group != own:
            with contextlib.suppress(OSError):
                group.rmdir()
    return folder


def _why(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.strerror else str(error)
