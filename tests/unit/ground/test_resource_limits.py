"""Limits of control groups count where they are smaller than the machine; on trees that stand in for the kernel's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rbee import resource_limits
from rbee.hive.devices import cpu
from rbee.resource_limits import MemoryLimit, memory_limit, processor_quota, usable_processors

GB = 1024**3
STAT = "anon 5\ninactive_file {inactive}\nactive_file {active}\nfile_mapped {mapped}\n"


def process(tmp_path: Path, *, cgroup: str, mounts: list[str]) -> Path:
    """Write what the kernel says of the groups of a process; `{}` in a mount is the folder of the tree."""
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "cgroup").write_text(cgroup)
    lines = [f"30 23 0:26 {mount.format(tmp_path / 'cgroup')}\n" for mount in mounts]
    (folder / "mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + "".join(lines))
    return folder


def group(tmp_path: Path, path: str, **files: str) -> None:
    """Write the files of a group; `__` in a name stands for a dot."""
    folder = tmp_path / "cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


V2 = "/ {} rw,nosuid - cgroup2 cgroup2 rw"


def test_version_2_counts_the_smallest_of_all_groups(tmp_path: Path) -> None:
    """A quota or a limit of a group above counts where it is smaller than that of the own group."""
    mine = process(tmp_path, cgroup="0::/pod/box\n", mounts=[V2])
    group(tmp_path, "pod", cpu__max="150000 100000\n", memory__max=f"{4 * GB}\n", memory__current=f"{3 * GB}\n")
    group(tmp_path, "pod/box", cpu__max="max 100000\n", memory__max=f"{8 * GB}\n", memory__current=f"{GB}\n")

    assert processor_quota(mine) == 1.5
    assert usable_processors(mine) == 1
    assert memory_limit(mine) == MemoryLimit(4 * GB, GB)


def test_what_caches_files_is_free_unless_somebody_maps_it(tmp_path: Path) -> None:
    """The cache of files counts as free, but for the weights that other workers have mapped; `high` is a limit too."""
    mine = process(tmp_path, cgroup="0::/box\n", mounts=[V2])
    stat = STAT.format(inactive=GB, active=2 * GB, mapped=2 * GB)
    files = {"memory__max": "max\n", "memory__high": f"{8 * GB}\n", "memory__current": f"{5 * GB}\n"}
    group(tmp_path, "box", **files, memory__stat=stat)

    assert memory_limit(mine) == MemoryLimit(8 * GB, 4 * GB)


@pytest.mark.parametrize(
    ("path", "mounted"),
    [("/box", "/"), ("/docker/4711", "/docker/4711"), ("/docker/4711", "/elsewhere"), ("/../x", "/")],
)
def test_version_1_is_read_wherever_it_is_mounted(tmp_path: Path, path: str, mounted: str) -> None:
    """Controllers of version 1 have mounts of their own; in a container only the own group may be mounted."""
    mine = process(
        tmp_path,
        cgroup=f"5:memory:{path}\n4:cpu,cpuacct:{path}\n1:name=systemd:{path}\n0::/\n",
        mounts=[
            f"{mounted} {{}}/memory rw - cgroup cgroup rw,memory",
            f"{mounted} {{}}/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
            "/ {}/unified rw - cgroup2 cgroup2 rw",
        ],
    )
    own = "box" if path == "/box" else ""
    group(tmp_path, f"cpu,cpuacct/{own}", cpu__cfs_quota_us="250000\n", cpu__cfs_period_us="100000\n")
    stat = f"cache 9\ntotal_inactive_file {GB}\ntotal_active_file 0\ntotal_mapped_file 0\n"
    files = {"memory__limit_in_bytes": f"{4 * GB}\n", "memory__usage_in_bytes": f"{2 * GB}\n", "memory__stat": stat}
    group(tmp_path, f"memory/{own}", **files)

    assert processor_quota(mine) == 2.5
    assert memory_limit(mine) == MemoryLimit(4 * GB, 3 * GB)


def test_without_limits_the_machine_counts(tmp_path: Path) -> None:
    """Groups without a limit, of either version, and a system without groups leave everything."""
    mine = process(
        tmp_path,
        cgroup="5:memory:/box\n4:cpu:/box\n0::/box\n",
        mounts=["/ {}/memory rw - cgroup cgroup rw,memory", "/ {}/cpu rw - cgroup cgroup rw,cpu", V2],
    )
    group(tmp_path, "memory/box", memory__limit_in_bytes="9223372036854771712\n", memory__usage_in_bytes="7\n")
    group(tmp_path, "cpu/box", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    group(tmp_path, "box", cpu__max="max 100000\n", memory__max="max\n", memory__current="7\n")

    for folder in (mine, tmp_path / "none"):
        assert (processor_quota(folder), memory_limit(folder)) == (None, None)
        assert usable_processors(folder) == len(os.sched_getaffinity(0))


def test_a_small_quota_leaves_one_thread(tmp_path: Path) -> None:
    """A quota of less than a processor is one thread; more than the machine has is what the affinity allows."""
    mine = process(tmp_path, cgroup="0::/box\n", mounts=[V2])
    group(tmp_path, "box", cpu__max="20000 100000\n")
    assert usable_processors(mine) == 1
    group(tmp_path, "box", cpu__max="99900000 100000\n")
    assert usable_processors(mine) == len(os.sched_getaffinity(0))


def test_the_memory_of_a_hive_is_within_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a hive says that its machine has is what its control groups leave of it."""
    monkeypatch.setattr(resource_limits, "memory_limit", lambda: MemoryLimit(64 * 1024**2, 1024**2))

    device = cpu.detect()

    assert (device.total_bytes, device.free_bytes) == (64 * 1024**2, 1024**2)
