"""Read how much of the machine this process may use: its processors, and the limits of its control groups.

A container, a unit of systemd or a job of a batch system is limited by control groups, of version 2 or 1, which the
machine as a whole does not show. Each group is within those above it, so the smallest of all counts.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

PROCESS: Final = Path("/proc/self")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
_UNLIMITED: Final = 1 << 62  # version 1 writes the largest number of pages instead of a word


class MemoryLimit(NamedTuple):
    """What the control groups allow, in bytes, and how much of that is left for a new process."""

    total: int
    free: int


class _Names(NamedTuple):
    """The files of the memory controller, and the keys of its statistics; `limits` are files of limits."""

    limits: tuple[str, ...]
    usage: str
    cached: tuple[str, str]
    mapped: str


_V2: Final = _Names(("memory.max", "memory.high"), "memory.current", ("inactive_file", "active_file"), "file_mapped")
_V1: Final = _Names(
    ("memory.limit_in_bytes",),
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
    "total_mapped_file",
)


def usable_processors(process: Path = PROCESS) -> int:
    """Return how many processors this process may use at once: those of its affinity, within its quota of time."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = processor_quota(process)
    # Rounded down: threads of llama.cpp wait for each other, and one that is held back holds all of them.
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def processor_quota(process: Path = PROCESS) -> float | None:
    """Return the processors whose time the control groups give to this process; None where they do not limit it."""
    quotas = []
    for folder in _groups(process, "cpu"):
        words = _read(folder / "cpu.max").split()
        if len(words) != 2:
            words = [_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()]
        quota, period = _number(words[0]), _number(words[1])
        if quota is not None and period:
            quotas.append(quota / period)
    return min(quotas, default=None)


def memory_limit(process: Path = PROCESS) -> MemoryLimit | None:
    """Return how much memory the control groups leave to this process; None where they do not limit it."""
    found = [limit for folder in _groups(process, "memory") if (limit := _limit_of(folder)) is not None]
    if not found:
        return None
    return MemoryLimit(min(limit.total for limit in found), min(limit.free for limit in found))


def _limit_of(folder: Path) -> MemoryLimit | None:
    """Return the limit of one group, and what is left: also the cache of files that nobody has mapped can be freed."""
    names = _V2 if (folder / _V2.usage).exists() else _V1
    limits = [number for name in names.limits if (number := _number(_read(folder / name))) is not None]
    total = min(limits, default=_UNLIMITED)
    usage = _number(_read(folder / names.usage))
    if total >= _UNLIMITED or usage is None:
        return None
    lines = [line.split() for line in _read(folder / "memory.stat").splitlines()]
    statistics = {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdecimal()}
    cached = sum(statistics.get(key, 0) for key in names.cached) - statistics.get(names.mapped, 0)
    return MemoryLimit(total, max(0, min(total, total - usage + max(cached, 0))))


def _groups(process: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the groups that limit this process by *controller*, its own first, then those above it."""
    paths = dict(_paths(process))
    for line in _read(process / "mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        words, kind = before.split(), after.split()
        if len(words) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        if kind[0] == "cgroup" and controller not in kind[2].split(","):
            continue
        path = paths.get("" if kind[0] == "cgroup2" else controller)
        if path is None:
            continue
        root, mount = PurePosixPath(_plain(words[3])), Path(_plain(words[4]))
        # In a container the path may be one of the host, of which only the container's own group is mounted.
        inside = path.is_relative_to(root) and ".." not in path.parts
        folder = mount / path.relative_to(root) if inside else mount
        yield folder
        yield from (above for above in folder.parents if above.is_relative_to(mount))


def _paths(process: Path) -> Iterator[tuple[str, PurePosixPath]]:
    """Yield the path of this process's group for each controller; version 2 has one for all, under an empty name."""
    for line in _read(process / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        yield from ((name, PurePosixPath(path)) for name in controllers.split(","))


def _plain(text: str) -> str:
    """Return a path of mountinfo, in which spaces and the like are octal numbers."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _number(text: str) -> int | None:
    """Return a whole number; None for `max`, -1, which mean no limit, and for a file that is not there."""
    text = text.strip()
    return int(text) if text.isdecimal() else None
