"""What a worker is expected to take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rbee.contracts.devices import Backend
from rbee.contracts.engine import CacheName
from rbee.hive.memory import (
    FILE_FACTOR,
    MEASURED_FACTOR,
    LoadedModel,
    LoadOptions,
    cache_bytes,
    compute_bytes,
    estimate,
    memory_need,
)
from tests.unit.hive.test_preflight import MODEL

LOAD = LoadOptions(Backend.CPU, 4, 4096)


def test_every_part_counts() -> None:
    """More slots, more context, a wider cache, a GPU's own part or repacked weights each raise the estimate."""
    base = estimate(MODEL, LOAD)

    assert estimate(MODEL, replace(LOAD, slots=5)) > base
    assert estimate(MODEL, replace(LOAD, context_length=8192)) > base
    assert estimate(MODEL, replace(LOAD, cache_type="f32")) > base
    assert estimate(MODEL, replace(LOAD, cache_type="q8_0")) < base
    assert estimate(MODEL, replace(LOAD, backend=Backend.CUDA)) > base
    assert estimate(MODEL, replace(LOAD, flash_attention=False)) > base
    assert estimate(MODEL, replace(LOAD, flash_attention=True)) == base
    assert estimate(MODEL, replace(LOAD, speculate=16)) == base + 16 * 4 * 32000
    q4_0, q8_0 = {2: 1000}, {8: 1000}
    assert estimate(replace(MODEL, matrix_bytes=q4_0), LOAD) == base + 1000
    assert estimate(replace(MODEL, matrix_bytes=q8_0), LOAD) == base
    assert estimate(replace(MODEL, matrix_bytes=q8_0), LOAD, arm=True) == base + 1000


def test_a_larger_round_of_prompts_costs_a_gpu_memory_and_a_cpu_none() -> None:
    """A GPU evaluates a round of prompts at once; a CPU reads it in small pieces anyway."""
    cpu, gpu = estimate(MODEL, LOAD), estimate(MODEL, replace(LOAD, backend=Backend.CUDA))

    assert estimate(MODEL, replace(LOAD, backend=Backend.CUDA, prompt_batch=512)) == gpu
    assert estimate(MODEL, replace(LOAD, backend=Backend.CUDA, prompt_batch=2048)) > gpu
    assert estimate(MODEL, replace(LOAD, backend=Backend.METAL, prompt_batch=128)) < gpu
    assert estimate(MODEL, replace(LOAD, prompt_batch=2048)) == cpu
    assert estimate(MODEL, replace(LOAD, prompt_batch=8)) == cpu


@pytest.mark.parametrize("cache", ["q8_0", "bf16", "f32"])
def test_cuda_copies_a_cache_that_is_not_f16(cache: CacheName) -> None:
    """Flash attention of CUDA needs a 16-bit copy of one layer's cache, of all slots; a large one sets the peak."""
    load = LoadOptions(Backend.CUDA, 4, 131072, cache)
    copied = MODEL.kv_bytes_per_token // (MODEL.layers or 1) * 131072 * 4

    assert compute_bytes(MODEL, load) > copied
    assert compute_bytes(MODEL, load) - compute_bytes(MODEL, replace(load, cache_type="f16")) == copied
    assert compute_bytes(MODEL, replace(load, backend=Backend.METAL)) < copied


@pytest.mark.parametrize(("context", "counted"), [(64, 256), (256, 256), (257, 512)])
def test_the_cache_is_rounded_as_llama_cpp_does(context: int, counted: int) -> None:
    """A slot's cache comes in steps of 256 tokens."""
    assert cache_bytes(MODEL, LoadOptions(Backend.CPU, 2, context)) == MODEL.kv_bytes_per_token * counted * 2


def test_what_was_measured_goes_before_the_formula() -> None:
    """A measured peak replaces the estimate, but neither the file's size nor all measure."""
    estimated = estimate(MODEL, LOAD)
    measured = int(estimated * 1.1)

    assert memory_need(MODEL, LOAD) == estimated
    assert memory_need(MODEL, LOAD, measured_bytes=measured) == int(measured * MEASURED_FACTOR)
    assert memory_need(MODEL, LOAD, measured_bytes=1) == int(FILE_FACTOR * MODEL.size_bytes)
    assert memory_need(MODEL, LOAD, measured_bytes=100 * estimated) < 2 * estimated


def test_a_measurement_is_of_one_file_and_one_way_to_load_it() -> None:
    """Another model, size, backend, context, number of slots, cache or way to compute has another id."""
    one = LoadedModel("sha", 100, LOAD)
    others = [
        replace(one, model="other"),
        replace(one, size_bytes=101),
        replace(one, load=replace(LOAD, backend=Backend.CUDA)),
        replace(one, load=replace(LOAD, slots=3)),
        replace(one, load=replace(LOAD, context_length=1)),
        replace(one, load=replace(LOAD, cache_type="f32")),
        replace(one, load=replace(LOAD, flash_attention=False)),
        replace(one, load=replace(LOAD, speculate=8)),
        replace(one, load=replace(LOAD, backend=Backend.CUDA, prompt_batch=8)),
    ]

    assert len({each.id for each in (one, *others)}) == 10
    assert LoadedModel("sha", 100, LOAD).id == one.id
