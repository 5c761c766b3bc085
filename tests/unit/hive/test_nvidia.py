"""Which of the driver's devices a worker will see, and which memory of them is foreign."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rbee.contracts.devices import Backend, Device, MemoryHolder
from rbee.hive.devices import foreign, probe
from rbee.hive.devices.nvidia import visible
from tests.support.nvml import Gpu, Gpus, Mode

UUIDS = ["GPU-aaaa-1", "GPU-aabb-2", "GPU-cccc-3"]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("2,0", [2, 0]),
        ("1", [1]),
        ("0,7,1", [0]),
        ("GPU-cc, GPU-aabb", [2, 1]),
        ("GPU-aa", []),
        ("1,1", [1]),
    ],
)
def test_devices_are_counted_as_cuda_counts_them(text: str | None, places: list[int]) -> None:
    """CUDA_VISIBLE_DEVICES picks and orders devices by number or name, up to the first that means nothing."""
    assert visible({} if text is None else {"CUDA_VISIBLE_DEVICES": text}, UUIDS) == places


def test_memory_of_workers_and_their_children_is_not_foreign() -> None:
    """Memory is foreign unless a worker holds it, or a process of its session; the largest holders are named."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    try:
        held = [(os.getpid(), 100), (child.pid, 200), (2**22 + 1, 300)]
        held += [(2**22 + 2 + number, 1) for number in range(9)]
        device = Device(
            backend=Backend.CUDA,
            index=0,
            name="d",
            total_bytes=1000,
            free_bytes=0,
            held_by=[MemoryHolder(pid=pid, name="", bytes=size) for pid, size in held],
        )

        found = foreign.without_own(device, {child.pid})
        ours = foreign.without_own(device, {os.getsid(os.getpid())})

        assert found.foreign_bytes == 409
        assert [(holder.pid, holder.bytes) for holder in found.held_by[:2]] == [(2**22 + 1, 300), (os.getpid(), 100)]
        assert found.held_by[0].name == "?"
        assert found.held_by[1].name not in ("", "?")
        assert len(found.held_by) == foreign.MOST_NAMED
        assert os.getpid() not in [holder.pid for holder in ours.held_by]
    finally:
        child.communicate(b"\n", timeout=10)


def test_programs_that_compute_or_draw_are_foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A game that draws holds memory like a program that computes; one that does both is counted once.

    A driver that cannot list the one or the other is not broken, and where the workers are not known nothing is said.
    """
    gpus = Gpus.build(tmp_path)
    for name, value in gpus.environ().items():
        monkeypatch.setenv(name, value)
    worker, ours = 2**22 + 1, os.getpid()

    def look(mode: Mode = "ok", own: Callable[[], set[int]] | None = lambda: {worker}) -> Device:
        gpus.set(Gpu(used_mb=8000), mode=mode, holders={ours: 500, worker: 100}, graphics={ours: 700})
        return asyncio.run(probe.detect(30, own)).devices[0]

    assert look().foreign_bytes == 700 * 2**20
    assert [holder.pid for holder in look().held_by] == [ours]
    assert look("no-graphics").foreign_bytes == 500 * 2**20
    assert (look(own=None).foreign_bytes, look(own=None).held_by) == (0, [])
