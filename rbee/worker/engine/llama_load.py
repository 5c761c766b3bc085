"""Load a GGUF file through llama.cpp, on the requested device or not at all."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import re
from dataclasses import replace
from typing import Any, Final

import psutil

from rbee import resource_limits
from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.gguf import prefix
from rbee.gguf.reader import OTHER_FILE
from rbee.worker.engine.device_memory import DeviceMemory
from rbee.worker.engine.llama import Llama
from rbee.worker.engine.llama_engine import LlamaEngine
from rbee.worker.engine.llama_library import PROGRESS_WORTH_BYTES, model_params
from rbee.worker.engine.mapped_files import MappedFiles
from rbee.worker.engine.protocol import EngineOptions, LoadProgress, ModelFacts
from rbee.worker.scheduling.attention_tiles import TILE_TOKENS, AttentionTiles

log = logging.getLogger("llama.cpp")
DEFAULT_CONTEXT: Final = 4096
_UPGRADE: Final = "This version of llama.cpp does not know such models: upgrade rbee, or use a model of another kind."
# More is not faster on a CPU, and running streams would wait longer.
_CPU_CHUNK_TOKENS: Final = 2 * TILE_TOKENS - 1
_TILED_CACHES: Final = frozenset({"f32", "f16"})
_OFFLOADED_SHARE: Final = 0.5  # minimum of the model's bytes in a GPU's memory; embeddings may stay outside
_MB: Final = 1024 * 1024
# In the log of llama.cpp: what it needs beside the weights, or other programs, may leave too little for them.
_ALLOCATION_FAILED: Final = re.compile(r"out of memory|(?:unable|failed) to allocate")
_GGML_TYPES: Final = {"f32": 0, "f16": 1, "q8_0": 8, "bf16": 30}
_POOLING_OF_TEXTS: Final = (1, 2, 3)  # enum llama_pooling_type: mean, of the first token, of the last
_POOLING_OF_PAIRS: Final = 4  # enum llama_pooling_type: the output of the ranking head
_EXHAUSTED: Final = {
    Backend.CPU: ErrorCode.RAM_EXHAUSTED,
    Backend.CUDA: ErrorCode.GPU_VRAM_EXHAUSTED,
    Backend.METAL: ErrorCode.GPU_VRAM_EXHAUSTED,
}


def load(options: EngineOptions, progress: LoadProgress) -> LlamaEngine:
    """Load the model and its context.

    Raises RbeeError for an unusable file or device, or too little memory.
    """
    prefix.check_file(options.model_path)
    files = _mapped_files(options)
    llama = Llama()
    gpu = None if options.backend is Backend.CPU else llama.device(options.backend, options.device)
    memory = None if gpu is None else DeviceMemory(lambda: llama.device_free_bytes(gpu))
    free_before = _free_bytes(llama, None) if memory is None else memory.free_before
    # On a GPU the number of offloaded layers is read from the log; on a CPU the log only costs time.
    llama.set_log(enabled=gpu is not None or log.isEnabledFor(logging.DEBUG))
    watched = progress if memory is None else memory.watched(progress)
    model = _load_model(llama, options, gpu, free_before, watched)
    embedding, ranks = _pooling(llama, model)
    context = _make_context(llama, options, model, gpu, whole=bool(embedding))
    llama.set_log(enabled=True)
    rows = options.rows
    if embedding:
        rows = _context_length(llama, model, options)
    chunk_tokens = rows if gpu is not None else min(rows, _CPU_CHUNK_TOKENS)
    engine = LlamaEngine(
        llama,
        model,
        context,
        replace(_facts(llama, model, options), embedding=embedding, ranks=ranks),
        slots=options.slots,
        rows=rows,
        chunk_tokens=chunk_tokens,
        tiles=_attention_tiles(llama, model, options) if gpu is None and chunk_tokens == _CPU_CHUNK_TOKENS else None,
        files=files,
    )
    if memory is not None:
        memory.look()
        _verify_offload(llama, options, model, memory.taken, engine)
    engine.warm_up()
    if memory is not None:
        memory.look()
        engine.facts = replace(engine.facts, device_bytes=memory.taken)
    return engine


def _mapped_files(options: EngineOptions) -> MappedFiles | None:
    """Open the files that the weights will be mapped from; None where they are read instead, or one is missing."""
    try:
        return MappedFiles(options.model_path) if options.mmap else None
    except OSError:
        return None  # llama.cpp will report what is wrong


def _load_model(
    llama: Llama,
    options: EngineOptions,
    gpu: int | None,
    free_before: int,
    progress: LoadProgress,
) -> int:
    lib = llama.lib
    params, _devices = model_params(lib, gpu, mmap=options.mmap)
    layers = prefix.read_layer_count(options.model_path)
    size = options.model_path.stat().st_size
    running = True

    def on_progress(share: float, _data: object) -> bool:
        nonlocal running
        running = progress(share, layers)
        return running

    if on_progress(0.0, None) and size >= PROGRESS_WORTH_BYTES:
        params.progress_callback = lib.llama_progress_callback(on_progress)
    path = os.fsencode(options.model_path)
    model = lib.llama_model_load_from_file(path, params) if running else None
    if model and on_progress(1.0, None):
        return int(model)
    if not running:
        if model:
            lib.llama_model_free(model)
        raise RbeeError(ErrorCode.CANCELED, "The loading was canceled before the model was loaded.")
    llama.set_log(enabled=True)  # once more, to learn why
    model = lib.llama_model_load_from_file(path, params)
    if model:
        return int(model)
    reason = _last_errors(llama)
    if size > free_before or _ALLOCATION_FAILED.search(reason):
        raise _out_of_memory(options, size, free_before, "the model")
    hint = _UPGRADE if "unknown model architecture" in reason else OTHER_FILE
    raise prefix.invalid_model(options.model_path, f"llama.cpp reports: {reason}", hint)


def _make_context(llama: Llama, options: EngineOptions, model: int, gpu: int | None, *, whole: bool) -> int:
    """Create the context; with *whole* it evaluates whole texts, one at a time, for their embeddings."""
    lib = llama.lib
    params = lib.llama_context_default_params()
    params.n_ctx = _context_length(llama, model, options) * options.slots
    params.n_seq_max = options.slots
    params.n_batch = params.n_ubatch = options.rows
    params.n_threads = params.n_threads_batch = options.threads or default_threads()
    params.type_k = params.type_v = _GGML_TYPES[options.cache_type]
    params.flash_attn_type = _flash_attention(llama, options)
    params.offload_kqv = gpu is not None
    params.kv_unified = False
    params.no_perf = True
    if whole:
        params.embeddings = True
        params.n_seq_max = 1
        params.n_ctx = params.n_batch = params.n_ubatch = _context_length(llama, model, options)
    context = lib.llama_init_from_model(model, params)
    if not context:
        error = _out_of_memory(options, _cache_bytes(llama, model, options), _free_bytes(llama, gpu), "its context")
        lib.llama_model_free(model)
        raise error
    return int(context)


def _flash_attention(llama: Llama, options: EngineOptions) -> int:
    """Return llama.cpp's setting: as configured, else wherever the device supports it; a quantised cache needs it."""
    if options.flash_attention is None and options.cache_type != "q8_0":
        return int(llama.lib.LLAMA_FLASH_ATTN_TYPE_AUTO)
    if options.flash_attention is False:
        return int(llama.lib.LLAMA_FLASH_ATTN_TYPE_DISABLED)
    return int(llama.lib.LLAMA_FLASH_ATTN_TYPE_ENABLED)


def _attention_tiles(llama: Llama, model: int, options: EngineOptions) -> AttentionTiles | None:
    """Return the tiles in which a CPU computes attention over a cache of that type, None without flash attention."""
    if options.flash_attention is False or options.cache_type not in _TILED_CACHES:
        return None
    lib = llama.lib
    numbers = lib.llama_model_n_layer(model) * lib.llama_model_n_embd(model)
    return AttentionTiles(numbers / max(1, lib.llama_model_n_params(model)))


def default_threads() -> int:
    """Return the number of physical cores that this process may use: a second thread on a core slows both."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    logical = psutil.cpu_count() or allowed
    physical = psutil.cpu_count(logical=False) or logical
    return max(1, min(math.ceil(allowed * physical / logical), resource_limits.usable_processors()))


def _context_length(llama: Llama, model: int, options: EngineOptions) -> int:
    return options.context or min(int(llama.lib.llama_model_n_ctx_train(model)), DEFAULT_CONTEXT)


def _pooling(llama: Llama, model: int) -> tuple[int, bool]:
    """Return the length of the model's vectors, 0 for a text model, and whether it is a reranking model.

    The files of such models state a pooling type, those of text models do not.
    """
    lib = llama.lib
    buffer = ctypes.create_string_buffer(64)
    if lib.llama_model_meta_val_str(model, b"general.architecture", buffer, len(buffer)) < 0:
        return 0, False
    key = buffer.value + b".pooling_type"
    stated = lib.llama_model_meta_val_str(model, key, buffer, len(buffer)) > 0
    pooling = int(buffer.value) if stated else None
    if pooling == _POOLING_OF_PAIRS:
        return int(lib.llama_model_n_cls_out(model)), True
    return (int(lib.llama_model_n_embd_out(model)) if pooling in _POOLING_OF_TEXTS else 0), False


def _facts(llama: Llama, model: int, options: EngineOptions) -> ModelFacts:
    lib = llama.lib
    vocab = lib.llama_model_get_vocab(model)
    buffer = ctypes.create_string_buffer(256)
    lib.llama_model_desc(model, buffer, len(buffer))
    template = lib.llama_model_chat_template(model, None)
    return ModelFacts(
        description=buffer.value.decode("utf-8", "replace"),
        context=_context_length(llama, model, options),
        train_context=lib.llama_model_n_ctx_train(model),
        vocabulary=lib.llama_vocab_n_tokens(vocab),
        layers=lib.llama_model_n_layer(model),
        size_bytes=lib.llama_model_size(model),
        chat_template=template.decode("utf-8", "replace") if template else None,
        begin_text=_token_text(lib, vocab, lib.llama_vocab_bos(vocab)),
        end_text=_token_text(lib, vocab, lib.llama_vocab_eos(vocab)),
    )


def _token_text(lib: Any, vocab: int, token: int) -> str:
    text = lib.llama_vocab_get_text(vocab, token) if token >= 0 else None
    return text.decode("utf-8", "replace") if text else ""


def _verify_offload(llama: Llama, options: EngineOptions, model: int, taken: int, engine: LlamaEngine) -> None:
    """Close the engine and raise CUDA_DEVICE_FAILED unless the model is on the device, which lost *taken* bytes."""
    reason = offload_failure(llama.offloaded, taken, llama.lib.llama_model_size(model))
    if reason is None:
        return
    engine.close()
    raise RbeeError(
        ErrorCode.CUDA_DEVICE_FAILED,
        f"The model is not on {options.backend} device {options.device}: {reason}.",
        details={"backend": options.backend.value, "device": options.device, "taken_mb": taken // _MB},
    )


def offload_failure(layers: tuple[int, int] | None, taken_bytes: int, size_bytes: int) -> str | None:
    """Return why a model is not on its GPU; None if it is.

    The log alone is no proof, so the device's free memory must have shrunk too; memory alone would not show a single
    layer that stayed behind, so llama.cpp's own count must be all of them.

    Args:
        layers: how many of how many layers llama.cpp reports to have offloaded; None if it reports nothing.
        taken_bytes: by how much the device's free memory fell during the load.
    """
    if layers is not None and layers[0] < layers[1]:
        return f"only {layers[0]} of {layers[1]} layers were offloaded"
    if taken_bytes < size_bytes * _OFFLOADED_SHARE:
        return f"only {taken_bytes // _MB} MB of its {size_bytes // _MB} MB were allocated there"
    return None


def _out_of_memory(options: EngineOptions, need: int, have: int, what: str) -> RbeeError:
    memory = "memory" if options.backend is Backend.CPU else f"memory on {options.backend} device {options.device}"
    # Other programs, or limits of this process, may leave less than is free.
    refused = "" if need > have else ", which llama.cpp could not allocate"
    return RbeeError(
        _EXHAUSTED[options.backend],
        f"Not enough {memory} for {what}: {need // _MB} MB needed{refused}, {have // _MB} MB free.",
        details={"required_mb": need // _MB, "available_mb": have // _MB},
    )


def _cache_bytes(llama: Llama, model: int, options: EngineOptions) -> int:
    """Estimate the cache of all slots: keys and values of every layer, two bytes each unless smaller."""
    lib = llama.lib
    heads, kv_heads = lib.llama_model_n_head(model) or 1, lib.llama_model_n_head_kv(model) or 1
    width = lib.llama_model_n_embd(model) * kv_heads // heads
    tokens = _context_length(llama, model, options) * options.slots
    return int(2 * 2 * lib.llama_model_n_layer(model) * width * tokens)


def _free_bytes(llama: Llama, gpu: int | None) -> int:
    if gpu is not None:
        return llama.device_free_bytes(gpu)
    limit = resource_limits.memory_limit()
    available = int(psutil.virtual_memory().available)
    return available if limit is None else min(available, limit.free)


def _last_errors(llama: Llama) -> str:
    return "; ".join(list(llama.errors)[-2:]) or "nothing"
