"""Backend, device and memory are cleared before a worker is started, and nothing is moved unasked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rbee.contracts.devices import Backend, Detection, Device, MemoryHolder
from rbee.contracts.engine import CacheName
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.gguf.header import GgufHeader
from rbee.hive.devices.budget import CpuBudget
from rbee.hive.memory import LoadOptions, memory_need
from rbee.hive.preflight import PreflightResult, choose_device, select_devices

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


def test_too_little_memory_says_who_else_holds_it() -> None:
    """Where other programs hold memory of a GPU, the refusal says how much, and which of them holds the most."""
    holders = [MemoryHolder(pid=4242, name="blender", bytes=6 * GB), MemoryHolder(pid=17, name="xorg", bytes=GB)]
    taken = device(Backend.CUDA, 0, 2).model_copy(update={"foreign_bytes": 7 * GB, "held_by": holders})

    error = refused(Detection(devices=[taken]))

    assert "other programs hold 7168 MB, the most blender (process 4242) with 6144 MB" in error.message
    assert error.details["foreign_mb"] == 7168
    assert error.details["held_by"] == [holder.model_dump() for holder in holders]
    assert "foreign_mb" not in refused(Detection(devices=[device(Backend.CUDA, 0, 2)])).details


def test_a_barred_device_is_passed_over() -> None:
    """Of two devices the one that may be used is taken; where none may, the error is that of the bar."""
    yielded = RbeeError(ErrorCode.DEVICE_YIELDED, "It is yielded.")

    def choose(*barred: int, index: int | None = None) -> int:
        bars = {(Backend.CUDA, number): yielded for number in barred}
        chosen = choose_device(TWO_GPUS, MODEL, backend=None, device=index, load_on=load_on, promised={}, barred=bars)
        return chosen.device.index

    assert choose(1) == 0
    for barred, index in (((0, 1), None), ((1,), 1)):
        with pytest.raises(RbeeError) as caught:
            choose(*barred, index=index)
        assert caught.value is yielded


def test_a_command_means_one_device_all_of_a_backend_or_all() -> None:
    """Without a backend a device is one of the best backend; what is not there is refused with what is."""

    def selected(backend: Backend | None, index: int | None) -> list[tuple[Backend, int]]:
        return [(one.backend, one.index) for one in select_devices(TWO_GPUS, backend, index)]

    assert selected(None, None) == [(Backend.CUDA, 0), (Backend.CUDA, 1), (Backend.CPU, 0)]
    assert selected(Backend.CUDA, None) == [(Backend.CUDA, 0), (Backend.CUDA, 1)]
    assert selected(None, 1) == [(Backend.CUDA, 1)]
    with pytest.raises(RbeeError) as caught:
        selected(None, 2)
    assert caught.value.code is ErrorCode.INVALID_DEVICE
    with pytest.raises(RbeeError) as caught:
        selected(Backend.METAL, None)
    assert caught.value.code is ErrorCode.BACKEND_UNAVAILABLE


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


def on_cpu(free_gb: float, budget: CpuBudget, promised_gb: int) -> PreflightResult:
    return choose_device(
        Detection(devices=[device(Backend.CUDA, 0, 1), device(Backend.CPU, 0, free_gb)]),
        MODEL,
        backend=Backend.CPU,
        device=None,
        load_on=load_on,
        promised={(Backend.CPU, 0): promised_gb * GB},
        cpu_budget=budget,
    )


@pytest.mark.parametrize(
    ("limit_gb", "taken_gb", "promised_gb", "left_gb"), [(12, 8, 0, 4), (12, 9, 9, 3), (3, 0, 0, 3), (3, 5, 0, 0)]
)
def test_workers_on_the_cpu_take_no_more_than_their_budget(
    limit_gb: int, taken_gb: int, promised_gb: int, left_gb: int
) -> None:
    """Where the budget less what those that run need is too little, the error says so, and what could be changed."""
    with pytest.raises(RbeeError) as caught:
        on_cpu(20, CpuBudget(limit_gb * GB, taken_gb * GB), promised_gb)

    error = caught.value
    assert error.code is ErrorCode.RAM_EXHAUSTED
    assert (error.details["available_mb"], error.details["budget_mb"]) == (left_gb * 1024, limit_gb * 1024)
    assert f"of the {limit_gb * 1024} MB that workers may take" in error.message
    assert "cpu_memory_gb" in error.hint


@pytest.mark.parametrize(("limit_gb", "taken_gb", "promised_gb"), [(12, 4, 0), (12, 6, 6), (100, 14, 14)])
def test_a_worker_that_loads_is_counted_once_against_a_budget(limit_gb: int, taken_gb: int, promised_gb: int) -> None:
    """What a worker that is still loading will take is not taken off the budget again."""
    assert on_cpu(20, CpuBudget(limit_gb * GB, taken_gb * GB), promised_gb).device.backend is Backend.CPU


def test_a_budget_promises_no_memory_that_the_machine_does_not_have() -> None:
    """Where the machine has less free than the budget leaves, that counts, and the error does not blame the budget."""
    with pytest.raises(RbeeError) as caught:
        on_cpu(16, CpuBudget(100 * GB, 50 * GB), 14)

    assert caught.value.details["available_mb"] == 2048
    assert "budget" not in str(caught.value.body())
    assert "cpu_memory_gb" not in caught.value.hint


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
