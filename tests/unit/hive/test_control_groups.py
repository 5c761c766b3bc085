"""Control groups of workers, on a tree of files that stands in for that of the kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rbee.hive.workers.control_groups import ControlGroup, ControlGroups

UNIT = "system.slice/rbee-hive.service"


def tree(tmp_path: Path, *, entries: str = f"0::/{UNIT}\n", controllers: str = "memory pids") -> Path:
    """Build what the hive looks at: its unit's group, with itself in it."""
    process, unit = tmp_path / "proc", tmp_path / "cgroup" / UNIT
    process.mkdir()
    unit.mkdir(parents=True)
    (process / "cgroup").write_text(entries)
    (unit / "cgroup.controllers").write_text(controllers)
    (unit / "cgroup.procs").write_text("4711\n")
    (unit / "cgroup.subtree_control").write_text("")
    return unit


def opened(tmp_path: Path) -> ControlGroups:
    return ControlGroups.open(tmp_path / "cgroup", tmp_path / "proc")


def test_a_worker_gets_a_group_beside_the_hives(tmp_path: Path) -> None:
    """The hive moves into a group of its own first; the worker's is bounded in memory and threads."""
    unit = tree(tmp_path)

    group = opened(tmp_path).admit("worker-1", 4712, 1_000_000)

    assert group is not None
    assert (unit / "hive" / "cgroup.procs").read_text() == "4711"
    assert (unit / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert {name: (group.folder / name).read_text() for name in ("memory.max", "memory.oom.group", "cgroup.procs")} == {
        "memory.max": "1000000",
        "memory.oom.group": "1",
        "cgroup.procs": "4712",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"entries": "4:memory:/\n0::/system.slice/rbee-hive.service\n"},
        {"entries": "0::/\n"},
        {"entries": "4:memory:/\n"},
        {"controllers": "cpu pids"},
    ],
    ids=["version 1 beside 2", "the root", "version 1", "no memory"],
)
def test_where_nothing_was_delegated_there_are_no_groups(
    tmp_path: Path, change: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """A hive without control groups says so once, and starts workers all the same."""
    unit = tree(tmp_path, **change)
    caplog.set_level("INFO")

    groups = opened(tmp_path)

    assert groups.admit("worker-1", 4712, 1) is None
    assert [record.message for record in caplog.records] == ["workers have no control groups of their own"]
    assert (unit / "cgroup.procs").read_text() == "4711\n"


def test_a_hive_of_a_container_without_cgroups_starts(tmp_path: Path) -> None:
    """Whatever is missing or closed is a reason, not a failure."""
    assert ControlGroups.open(tmp_path, tmp_path / "none").admit("worker-1", os.getpid(), 1) is None


def test_the_kernels_end_of_a_worker_is_told(tmp_path: Path) -> None:
    """A worker that the kernel ended for its memory says how much it was allowed."""
    group = ControlGroup(tmp_path, 3 * 1024 * 1024)
    assert group.ran_out() is None
    (tmp_path / "memory.events").write_text("low 0\nmax 12\noom 1\noom_kill 0\n")
    assert group.ran_out() is None
    (tmp_path / "memory.events").write_text("low 0\nmax 12\noom 1\noom_kill 2\n")
    assert group.ran_out() == "it needed more than the 3 MB of memory that it may hold"
