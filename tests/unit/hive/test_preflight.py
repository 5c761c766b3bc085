"""Backend, device and memory are cleared before a worker is started, and nothing is moved unasked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rbee.contracts.devices import Backend, Detection, Device
from rbee.contracts.engine import CacheName
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.gguf.header import GgufHeader
from rbee.hive.memory import LoadOptions, memory_need
from rbee.hive.preflight import PreflightResult, choose_device

GB = 1024**3
MODEL = GgufHeader(
    size_bytes=4 * GB,
    architecture="llama",
    name="m",
    quantization="Q4_K_M",
    context_length=8192,
    layers=32,
    embedding_length=4096,
    vocabulary_size=32000,
    end_token=2,
    has_chat_template=True,
    kv_bytes_per_token=128 * 1024,
    heads=32,
)


def device(backend: Backend, index: int, free_gb: float) -> Device:
    return Device(backend=backend, index=index, name="d", total_bytes=24 * GB, free_bytes=int(free_gb * GB))


CPU = device(Backend.CPU, 0, 16)
CPU_ONLY = Detection(devices=[CPU])
TWO_GPUS = Detection(devices=[device(Backend.CUDA, 0, 8), device(Backend.CUDA, 1, 20), CPU])


def ask(detection: Detection, backend: Backend | None = None, index: int | None = None, **more: int) -> PreflightResult:
    promised = {(Backend.CUDA, 1): more.get("promised_gb", 0) * GB}
    return choose_device(detection, MODEL, backend=backend, device=index, load_on=load_on, promised=promised)


def load_on(backend: Backend) -> LoadOptions:
    return LoadOptions(backend, 4, 2048)


def refused(detection: Detection, backend: Backend | None = None, index: int | None = None) -> RbeeError:
    with pytest.raises(RbeeError) as caught:
        ask(detection, backend, index)
    return caught.value


@pytest.mark.B25
def test_the_best_backend_is_taken() -> None:
    """Without a fields the best backend is used, on its device with the most free memory."""
    assert ask(TWO_GPUS).device.backend is Backend.CUDA
    assert ask(TWO_GPUS).device.index == 1
    assert ask(CPU_ONLY).device.backend is Backend.CPU
    assert ask(TWO_GPUS, Backend.CUDA, 0).device.index == 0
    assert ask(TWO_GPUS, Backend.CPU).device.backend is Backend.CPU


def test_memory_promised_to_loading_workers_counts() -> None:
    """A device whose memory another worker is about to take is passed over."""
    assert ask(TWO_GPUS, promised_gb=15).device.index == 0


@pytest.mark.B26
def test_an_absent_backend_fails_with_what_is_there() -> None:
    """A backend that is not there is BACKEND_UNAVAILABLE, names what is, and offers the CPU as a choice."""
    error = refused(CPU_ONLY, Backend.CUDA)

    assert error.code is ErrorCode.BACKEND_UNAVAILABLE
    assert error.details["available"] == ["cpu"]
    assert "--backend cpu" in error.hint


def test_a_broken_driver_is_not_passed_over() -> None:
    """Where a GPU's driver is broken nothing falls back to the CPU, asked for or not; the fault is said."""
    broken = Detection(devices=[CPU], faults={Backend.CUDA: "it did not answer within 5 s"})

    for error in (refused(broken, Backend.CUDA), refused(broken)):
        assert error.code is ErrorCode.GPU_NOT_AVAILABLE
        assert "did not answer" in error.message
    assert ask(broken, Backend.CPU).device.backend is Backend.CPU


def test_an_absent_device_names_the_valid_ones() -> None:
    """A device index that is not there is INVALID_DEVICE with the valid ones."""
    error = refused(TWO_GPUS, Backend.CUDA, 5)

    assert error.code is ErrorCode.INVALID_DEVICE
    assert error.details["valid"] == [0, 1]


@pytest.mark.B24
@pytest.mark.parametrize(
    ("backend", "code"), [(Backend.CPU, ErrorCode.RAM_EXHAUSTED), (Backend.CUDA, ErrorCode.VRAM_EXHAUSTED)]
)
def test_too_little_memory_says_need_and_have(backend: Backend, code: ErrorCode) -> None:
    """Too little memory fails with need and have in MB and the advice of a smaller quantisation."""
    full = Detection(devices=[device(Backend.CUDA, 0, 2), device(Backend.CPU, 0, 2)])

    error = refused(full, backend)

    assert error.code is code
    assert error.details["available_mb"] == 2048
    assert error.details["required_mb"] > 4096
    assert "smaller quantisation" in error.hint
    assert ("--backend cpu" in error.hint) is (backend is Backend.CUDA)


def test_a_gpu_that_is_full_is_not_left_for_the_cpu() -> None:
    """The best backend fails when it cannot take the model; the next one is not tried."""
    full = Detection(devices=[device(Backend.CUDA, 0, 2), device(Backend.CPU, 0, 100)])

    assert refused(full).code is ErrorCode.VRAM_EXHAUSTED


@pytest.mark.B22
@pytest.mark.B23
def test_the_need_is_the_larger_estimate() -> None:
    """Need is 1.2 x file size, unless weights, cache and buffers are more."""
    small_cache = replace(MODEL, kv_bytes_per_token=0, vocabulary_size=0, embedding_length=0)

    assert memory_need(small_cache, LoadOptions(Backend.CPU, 1, 64)) == int(1.2 * MODEL.size_bytes)
    assert memory_need(MODEL, LoadOptions(Backend.CPU, 4, 8192)) >= MODEL.size_bytes + 4 * 8192 * 128 * 1024


@pytest.mark.parametrize(
    ("widths", "cache_type", "possible"),
    [
        ((128, 128), "q8_0", True),
        ((80, 80), "q8_0", False),
        ((192, 80), "q8_0", False),
        ((80, 80), "f16", True),
        (None, "q8_0", True),
    ],
)
def test_a_cache_that_the_model_cannot_have_is_refused(
    widths: tuple[int, int] | None, cache_type: CacheName, *, possible: bool
) -> None:
    """A quantised cache stores whole blocks, so that a model with other heads is refused, with the way out."""
    model = replace(MODEL, head_widths=widths)

    def ask_for() -> PreflightResult:
        fields = LoadOptions(Backend.CPU, 4, 2048, cache_type)
        return choose_device(CPU_ONLY, model, backend=None, device=None, load_on=lambda _: fields, promised={})

    if possible:
        assert ask_for().device == CPU
        return
    with pytest.raises(RbeeError) as caught:
        ask_for()
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert "80 numbers" in caught.value.message
    assert "cache_type" in caught.value.hint
