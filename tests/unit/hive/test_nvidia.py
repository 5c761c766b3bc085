"""Which of the driver's devices a worker will see."""

from __future__ import annotations

import pytest

from rbee.hive.devices.nvidia import visible

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
