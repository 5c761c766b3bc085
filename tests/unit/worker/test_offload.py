"""What counts as proof that a model is on a GPU."""

from __future__ import annotations

import pytest

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


def test_the_count_is_read_from_the_log() -> None:
    """llama.cpp's line about offloaded layers is understood, also where it comes in two pieces."""
    llama = Llama.__new__(Llama)
    llama.offloaded, llama._line, llama._level = None, "", INFO

    llama._on_log(INFO, b"load_tensors: offloading output layer to GPU\n", None)
    assert llama.offloaded is None
    llama._on_log(INFO, b"load_tensors: offloaded 28/33 ", None)
    llama._on_log(5, b"layers to GPU\n", None)

    assert llama.offloaded == (28, 33)
