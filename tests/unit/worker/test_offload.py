"""What counts as proof that a model is on a GPU."""

from __future__ import annotations

import pytest

from rbee.worker.engine.device_memory import DeviceMemory
from rbee.worker.engine.llama import Llama
from rbee.worker.engine.llama_load import offload_failure

GB = 1024**3
INFO = 2


@pytest.mark.parametrize(
    ("layers", "taken_gb", "failure"),
    [
        ((33, 33), 4.5, None),
        ((12, 33), 4.5, "only 12 of 33 layers were offloaded"),
        ((32, 33), 4.5, "only 32 of 33 layers were offloaded"),
        ((0, 33), 0.0, "only 0 of 33 layers were offloaded"),
        ((33, 33), 0.1, "only 102 MB of its 4096 MB were allocated there"),
        (None, 4.5, None),
        (None, 1.0, "only 1024 MB of its 4096 MB were allocated there"),
    ],
)
def test_both_the_count_and_the_memory_must_say_so(
    layers: tuple[int, int] | None, taken_gb: float, failure: str | None
) -> None:
    """A model is on its GPU when all layers are said to be there and the device has lost the memory for them."""
    assert offload_failure(layers, int(taken_gb * GB), 4 * GB) == failure


@pytest.mark.parametrize(
    ("free_gb", "taken_gb"),
    [
        ((80, 75, 73, 73), 7),
        ((20, 15, 23, 22), 5),  # another worker gave back 8 GB while the weights were read
        ((20, 28, 23, 22), 6),  # it did so before they were allocated
        ((20, 20, 20, 20), 0),
        ((20, 30, 30, 30), 0),
    ],
)
def test_memory_that_others_give_back_hides_nothing(free_gb: tuple[int, ...], taken_gb: int) -> None:
    """What a load took is the deepest fall of the free memory, not what was free before less what is free after."""
    readings = iter(free_gb)
    memory = DeviceMemory(lambda: next(readings))
    progress = memory.watched(lambda share, _layers: share < 1)

    assert [progress(0.0, 32), progress(1.0, 32)] == [True, False]
    memory.look()

    assert (memory.free_before, memory.taken) == (free_gb[0], taken_gb)


def test_the_count_is_read_from_the_log() -> None:
    """llama.cpp's line about offloaded layers is understood, also where it comes in two pieces."""
    llama = Llama.__new__(Llama)
    llama.offloaded, llama._line, llama._level = None, "", INFO

    llama._on_log(INFO, b"load_tensors: offloading output layer to GPU\n", None)
    assert llama.offloaded is None
    llama._on_log(INFO, b"load_tensors: offloaded 28/33 ", None)
    llama._on_log(5, b"layers to GPU\n", None)

    assert llama.offloaded == (28, 33)
