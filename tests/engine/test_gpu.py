"""The real engine on a real GPU: proof of offload, and memory that is taken and given back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from rbee import landlock
from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.gguf.header import read_header
from rbee.hive.memory import estimate
from rbee.worker.engine import llama_load
from rbee.worker.engine.llama import Llama
from rbee.worker.engine.llama_engine import LlamaEngine
from rbee.worker.engine.protocol import EngineOptions
from rbee.worker.scheduling.slots import SlotTable
from rbee.worker.text.sampling import SamplerChain, Stage
from tests.support.memory_truth import Case
from tests.support.models import smollm2_path
from tests.support.waiting import eventually
from tests.support.worker import Worker, text_of, worker

pytestmark = [pytest.mark.engine, pytest.mark.gpu]
CONTEXT, SLOTS = 1024, 2
SLACK = 64 * 1024 * 1024
ON_CUDA = ("--backend", "cuda")


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


def test_a_context_that_does_not_fit_is_said_and_leaves_nothing(llama: Llama) -> None:
    """More memory than the device has is GPU_VRAM_EXHAUSTED, and what was taken until then is given back."""
    device = llama.device(Backend.CUDA, 0)
    for _ in loaded(Backend.CUDA):
        pass  # the process's own part of the device stays from now on
    before = llama.device_free_bytes(device)

    with pytest.raises(RbeeError) as caught:
        llama_load.load(replace(options(), context=2**24), lambda _share, _layers: True)

    assert caught.value.code is ErrorCode.GPU_VRAM_EXHAUSTED
    assert llama.device_free_bytes(device) >= before - SLACK


@pytest.mark.parametrize("confine", ["true", "false"])
def test_a_worker_computes_there_within_its_rights(llama: Llama, tmp_path: Path, confine: str) -> None:
    """CUDA starts in a process that was confined before, and its memory comes back within 2 s of a kill."""
    if confine == "true" and not landlock.abi_version():
        pytest.skip("this kernel has no Landlock")
    device = llama.device(Backend.CUDA, 0)
    before = llama.device_free_bytes(device)

    with worker(tmp_path, *ON_CUDA, "--confine", confine, model=smollm2_path()) as running:
        running.until_idle()
        assert text_of(running.infer(prompt="Bees are", raw=True, max_tokens=4))
        assert llama.device_free_bytes(device) < before - SLACK
        assert (confine == "true") == ("not confined" not in running.log.read_text())
        running.process.kill()
        running.process.wait(10)
        eventually(lambda: llama.device_free_bytes(device) >= before - SLACK, within=2, because="the driver frees it")


@pytest.mark.parametrize(
    "case",
    [
        Case("Q4_1", 2048, 4),
        Case("Q4_1", 8192, 1),
        Case("Q4_1", 1024, 64),
        Case("Q4_1", 8192, 4, "q8_0"),
        Case("Q4_1", 8192, 4, "f32"),
        Case("Q4_1", 2048, 2, flash_attention=False),
        Case("Q4_1", 2048, 2, prompt_batch=2048),
    ],
    ids=lambda case: case.name,
)
def test_no_more_is_taken_than_expected(llama: Llama, tmp_path: Path, case: Case) -> None:
    """What a worker takes of the device, all slots in use, is at most what was expected of such a load."""
    device = llama.device(Backend.CUDA, 0)
    before = llama.device_free_bytes(device)
    expected = estimate(read_header(smollm2_path()), replace(case.load, backend=Backend.CUDA))

    with worker(tmp_path, *ON_CUDA, *case.options, model=smollm2_path()) as running:
        running.until_idle()
        use_all_slots(running, case)
        taken = before - llama.device_free_bytes(device)

    assert 0 < taken <= expected


def use_all_slots(running: Worker, case: Case) -> None:
    """Ask as many at once as there are slots, with prompts of more than one batch."""
    fields = {"prompt": "bees and honey, flowers and wax; " * 80, "raw": True, "max_tokens": 8}
    asking = [threading.Thread(target=running.infer, kwargs=fields) for _ in range(case.slots)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
