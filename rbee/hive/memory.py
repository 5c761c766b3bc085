"""Estimate how much of its device's memory a worker will take.

Pure: the header and the load options go in, bytes come out.
Measured on CPUs, over quantisations, contexts and slots: never below what a worker takes, and at most 15 % above
(`python -m bench memory` prints the table). A measurement of the same load takes precedence over the formula.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rbee.contracts.devices import Backend
from rbee.contracts.engine import CacheName, prompt_tokens
from rbee.gguf.header import GgufHeader

FILE_FACTOR: Final = 1.2
# A worker that has only loaded has not touched all of its buffers yet: measured, up to 3 % are to come.
MEASURED_FACTOR: Final = 1.05
# One worker that leaked memory must not keep its model from ever being loaded again.
MAX_MEASURED_FACTOR: Final = 1.5
CACHE_BYTES: Final[Mapping[CacheName, float]] = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}

_MIB: Final = 1024 * 1024
_SPARE_BYTES: Final = 1024 * _MIB
_CONTEXT_STEP: Final = 256  # llama.cpp rounds the cache of each slot up
# On a CPU a worker reads prompts in small pieces, however large a round is; what a yet smaller one saves in rows is
# taken by buffers that have no rows.
_CPU_ROWS: Final = 129
_FLOAT: Final = 4
_HEAD_WIDTH: Final = 64  # of attention, where a header does not say how many heads there are
_PROCESS_BYTES: Final = 58 * _MIB  # Python, libraries, the web server
_TOKEN_BYTES: Final = 160  # of each entry of the vocabulary, beside the file
_SLOT_BYTES: Final = _MIB
_GRAPH_BYTES: Final = 2 * _MIB
# What CUDA takes of the device for itself, for each process.
_GPU_PROCESS_BYTES: Final = 512 * _MIB
# Types whose matrices llama.cpp copies into another layout for the CPU, beside the mapped file: Q4_0, IQ4_NL, Q4_K and
# Q2_K everywhere, Q8_0, Q5_K and Q6_K on ARM.
_REPACKED: Final = frozenset({2, 20, 12, 10})
_REPACKED_ON_ARM: Final = _REPACKED | {8, 13, 14}


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a model is to be loaded; `context_length` is in tokens for each slot, the rest as in `contracts.engine`."""

    backend: Backend
    slots: int
    context_length: int
    cache_type: CacheName = "f16"
    flash_attention: bool | None = None
    prompt_batch: int | None = None
    speculate: int = 0

    @property
    def rows(self) -> int:
        """Return the tokens of the largest evaluation: a chunk of a prompt, or one of each slot plus the drafts."""
        on_cpu = self.backend is Backend.CPU
        prompt = _CPU_ROWS if on_cpu else prompt_tokens(self.backend, self.prompt_batch) + 1
        return max(prompt, self.slots + self.speculate)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model together with how it is loaded: what a measurement is about.

    `model` is its sha256 where that is known, else its reference, which together with the size names one file.
    """

    model: str
    size_bytes: int
    load: LoadOptions

    @property
    def id(self) -> str:
        """Return an id of constant length."""
        load = self.load
        parts = (
            *(self.model, self.size_bytes, load.backend.value, load.slots, load.context_length, load.cache_type),
            *(load.rows, load.speculate, load.flash_attention),
        )
        return hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()


def memory_need(header: GgufHeader, load: LoadOptions, *, arm: bool = False, measured_bytes: int | None = None) -> int:
    """Return what must be free: the larger of 1.2 x file size and what the worker is expected to take.

    Args:
        arm: the CPU is an ARM one, for which llama.cpp copies more types of weights.
        measured_bytes: the most that such a load took on this machine before; None if it was never measured.
    """
    expected = estimate(header, load, arm=arm)
    if measured_bytes is not None:
        expected = min(int(measured_bytes * MEASURED_FACTOR), int(expected * MAX_MEASURED_FACTOR))
    return max(int(FILE_FACTOR * header.size_bytes), expected)


def memory_limit(need_bytes: int) -> int:
    """Return the bytes that a worker may hold before it is killed."""
    return max(2 * need_bytes, need_bytes + _SPARE_BYTES)


def estimate(header: GgufHeader, load: LoadOptions, *, arm: bool = False) -> int:
    """Add up weights, cache, buffers and the process itself."""
    on_cpu = load.backend is Backend.CPU
    total = header.size_bytes + cache_bytes(header, load) + compute_bytes(header, load)
    total += (load.slots + load.speculate) * _FLOAT * (header.vocabulary_size or 0) + load.slots * _SLOT_BYTES
    if not on_cpu:
        return total + _GPU_PROCESS_BYTES
    repacked = _REPACKED_ON_ARM if arm else _REPACKED
    total += sum(size for kind, size in header.matrix_bytes.items() if kind in repacked)
    return total + _PROCESS_BYTES + _TOKEN_BYTES * (header.vocabulary_size or 0)


def cache_bytes(header: GgufHeader, load: LoadOptions) -> int:
    """Estimate the keys and values of all slots."""
    return int(header.kv_bytes_per_token * _cells(load) * CACHE_BYTES[load.cache_type] / CACHE_BYTES["f16"])


def _cells(load: LoadOptions) -> int:
    """Return the tokens that the cache of all slots can hold."""
    return -(-load.context_length // _CONTEXT_STEP) * _CONTEXT_STEP * load.slots


def compute_bytes(header: GgufHeader, load: LoadOptions) -> int:
    """Estimate the buffers of one evaluation: its widest moment, which is the end, a layer's middle or attention."""
    rows = load.rows
    vocabulary, embedding = header.vocabulary_size or 0, header.embedding_length or 0
    hidden = header.feed_forward_length or 4 * embedding
    widest = max(vocabulary + 2 * embedding, 2 * hidden + 3 * embedding)
    attention = rows * (6 * embedding * _FLOAT + load.context_length * (_FLOAT + _FLOAT // 2))
    if load.flash_attention is False:  # then the attention scores of each head are materialised
        attention += rows * load.context_length * (header.heads or embedding // _HEAD_WIDTH) * _FLOAT
    elif load.backend is Backend.CUDA and load.cache_type != "f16":
        # Flash attention there reads 16-bit numbers only: the keys and values of a layer, of all slots, are copied.
        attention += header.kv_bytes_per_token // max(header.layers or 1, 1) * _cells(load)
    return max(rows * widest * _FLOAT, attention) + _GRAPH_BYTES
