"""The real engine on a real GPU: proof of offload, and memory that is taken and given back."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.engine import llama_load
from rbee.worker.engine.llama import Llama
from rbee.worker.engine.llama_engine import LlamaEngine
from rbee.worker.engine.protocol import EngineOptions
from rbee.worker.scheduling.slots import SlotTable
from rbee.worker.text.sampling import SamplerChain, Stage
from tests.support.models import smollm2_path

pytestmark = [pytest.mark.engine, pytest.mark.gpu]
CONTEXT, SLOTS = 1024, 2
SLACK = 64 * 1024 * 1024


@pytest.fixture(name="llama")
def _llama() -> Llama:
    llama = Llama()
    if not llama.supports_gpu():
        pytest.skip("the llama.cpp that is installed here was built without GPU support")
    try:
        llama.device(Backend.CUDA, 0)
    except RbeeError as error:
        pytest.skip(f"there is no CUDA device here: {error.message}")
    return llama


def options(device: int = 0, backend: Backend = Backend.CUDA) -> EngineOptions:
    return EngineOptions(smollm2_path(), backend, device, SLOTS, context=CONTEXT, batch_tokens=127)


def loaded(backend: Backend) -> Iterator[LlamaEngine]:
    engine = llama_load.load(options(backend=backend), lambda _share, _layers: True)
    yield engine
    engine.close()


def greedy(engine: LlamaEngine, prompt: str, count: int) -> str:
    """Generate the likeliest tokens."""
    table = SlotTable(SLOTS, CONTEXT, chunk=engine.chunk_tokens, copies=engine.can_copy, tiles=engine.tiles)
    tokens = engine.tokenize(prompt, special=False)
    assignment = table.admit("one", tokens)
    assert assignment is not None
    engine.set_sampler(assignment.slot, SamplerChain(((Stage.GREEDY, ()),)), tokens)
    came: list[int] = []
    while len(came) < count:
        for plan in table.plan(len(tokens)):
            sampled = engine.step(plan)
            assert sampled is not None
            table.record_evaluated(plan)
            for token in sampled:
                came.append(token)
                table.append_token(assignment.slot, token)
    engine.clear_sampler(assignment.slot)
    return b"".join(engine.piece(token) for token in came[:count]).decode("utf-8", "replace")


def test_a_model_on_a_gpu_takes_its_memory_there_and_gives_it_back(llama: Llama) -> None:
    """The device loses at least the model's bytes with the load, the process does not, and all comes back after it."""
    device = llama.device(Backend.CUDA, 0)
    before = llama.device_free_bytes(device)
    resident = psutil.Process().memory_info().rss

    for engine in loaded(Backend.CUDA):
        taken = before - llama.device_free_bytes(device)
        assert taken >= engine.facts.size_bytes / 2
        assert greedy(engine, "Bees are", 8)
        # CUDA itself takes a few hundred MB of a process; a second copy of the model would come on top.
        assert psutil.Process().memory_info().rss - resident < 1024**3

    # What stays is CUDA's own context, which goes with the process.
    assert llama.device_free_bytes(device) >= before - taken + SLACK


def test_all_layers_are_counted_on_the_gpu(llama: Llama) -> None:
    """llama.cpp's count of offloaded layers is read, and is all of them, the output layer included."""
    for engine in loaded(Backend.CUDA):
        assert engine._llama.offloaded == (engine.facts.layers + 1, engine.facts.layers + 1)


def test_a_gpu_gives_about_what_a_cpu_gives(llama: Llama) -> None:
    """The first likeliest token is the same on both: the GPU computes the same model."""
    answers = [
        greedy(engine, "The capital of France is", 1) for b in (Backend.CUDA, Backend.CPU) for engine in loaded(b)
    ]

    assert answers[0] == answers[1]


def test_a_device_too_many_is_said(llama: Llama) -> None:
    """A device index that CUDA does not have is INVALID_DEVICE with the number there is."""
    with pytest.raises(RbeeError) as caught:
        llama_load.load(options(device=63), lambda _share, _layers: True)

    assert caught.value.code is ErrorCode.INVALID_DEVICE
    assert caught.value.details["devices"] >= 1
