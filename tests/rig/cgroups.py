"""Give each host a control group of its own.

systemd-nspawn puts a machine below the group that it was itself started in. Started side by side from one group,
two machines would share every group of theirs, and one that stops its sshd would stop the sshd of the other.
"""

from __future__ import annotations

from pathlib import Path

# Pure version 2, or the tree that systemd uses beside version 1's controllers.
_ROOT = Path("/sys/fs/cgroup")
_TREES = (_ROOT, _ROOT / "unified", _ROOT / "systemd")
_START = 'for tree in $1; do echo $$ > "$tree/cgroup.procs" || exit 1; done; shift; exec "$@"'


def within(name: str, argv: list[str]) -> list[str]:
    """Make the group *name* and give the command that runs *argv* in it."""
    groups = [tree / name for tree in _trees()]
    for group in groups:
        group.mkdir(exist_ok=True)
    return ["/bin/sh", "-c", _START, "sh", " ".join(map(str, groups)), *argv]


def groups(start: str) -> list[Path]:
    """List the groups whose name starts with *start*."""
    return sorted(group for tree in _trees() for group in tree.glob(f"{start}*") if group.is_dir())


def members(group: Path) -> list[int]:
    """List the processes in a group and below it."""
    try:
        return [int(pid) for procs in group.rglob("cgroup.procs") for pid in procs.read_text(encoding="ascii").split()]
    except OSError:
        # A group that went away between the look and the reading has no members.
        return []


def remove(group: Path) -> None:
    """Take a group and all below it away; they must be empty."""
    for folder in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
        folder.rmdir()
    group.rmdir()


def _trees() -> list[Path]:
    return [tree for tree in _TREES if (tree / "cgroup.procs").exists()]
