"""What counts as proof that a model is on a GPU."""

from __future__ import annotations

import pytest

from rbee.worker.engine.llama import Llama
from rbee.worker.engine.llama_load import offload_failure

GB = 1024**3
INFO = 2


@pytest.mark.parametrize(
    ("layers", "taken_gb", "proven"),
    [
        ((33, 33), 4.5, True),
        ((12, 33), 4.5, False),
        ((32, 33), 4.5, False),
        ((0, 33), 0.0, False),
        ((33, 33), 0.1, False),
        (None, 4.5, True),
        (None, 1.0, False),
    ],
)
def test_both_the_count_and_the_memory_must_say_so(
    layers: tuple[int, int] | None, taken_gb: float, proven: bool
) -> None:
    """A model is on its GPU when all layers are said to be there and the device has lost the memory for them."""
    reason = offload_failure(layers, int(taken_gb * GB), 4 * GB)

    assert (reason is None) is proven
    assert reason is None or "of" in reason


def test_the_count_is_read_from_the_log() -> None:
    """llama.cpp's line about offloaded layers is understood, also where it comes in two pieces."""
    llama = Llama.__new__(Llama)
    llama.offloaded, llama._line, llama._level = None, "", INFO

    llama._on_log(INFO, b"load_tensors: offloading output layer to GPU\n", None)
    assert llama.offloaded is None
    llama._on_log(INFO, b"load_tensors: offloaded 28/33 ", None)
    llama._on_log(5, b"layers to GPU\n", None)

    assert llama.offloaded == (28, 33)
