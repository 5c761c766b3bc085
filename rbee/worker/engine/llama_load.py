"""Load a GGUF through llama.cpp, on the asked device or not at all."""

from __future__ import annotations

import ctypes
import logging
import math
import os
from dataclasses import replace
from typing import Any, Final

import psutil

from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.engine import model_file
from rbee.worker.engine.early import EarlyModel
from rbee.worker.engine.llama import Llama
from rbee.worker.engine.llama_engine import LlamaEngine
from rbee.worker.engine.llama_library import PROGRESS_WORTH_BYTES, model_params
from rbee.worker.engine.protocol import EngineOptions, LoadProgress, ModelFacts

log = logging.getLogger("llama.cpp")
DEFAULT_CONTEXT: Final = 4096
# From 64 rows on, flash attention on a CPU goes another way that rounds differently: below, the tokens of a prompt do
# not depend on how it was cut and what of it was cached. Measured: 245 instead of 300 tokens/s of a prompt.
CPU_PIECE_TOKENS: Final = 63
_OFFLOADED_SHARE: Final = 0.5  # of the model's bytes that a GPU has taken at least; embeddings may stay outside
_MB: Final = 1024 * 1024
_GGML_TYPES: Final = {"f32": 0, "f16": 1, "q8_0": 8, "bf16": 30}
_POOLING_OF_TEXTS: Final = (1, 2, 3)  # enum llama_pooling_type: mean, of the first token, of the last
_POOLING_OF_PAIRS: Final = 4  # enum llama_pooling_type: the outcome of the head that ranks
_EXHAUSTED: Final = {
    Backend.CPU: ErrorCode.RAM_EXHAUSTED,
    Backend.CUDA: ErrorCode.GPU_VRAM_EXHAUSTED,
    Backend.METAL: ErrorCode.GPU_VRAM_EXHAUSTED,
}


def load(options: EngineOptions, progress: LoadProgress, early: EarlyModel | None = None) -> LlamaEngine:
    """Load the model, unless *early* has, and its context. Raises RbeeError for a wrong file, memory or device."""
    model_file.check(options.model_path)
    llama = Llama()
    gpu = None if options.backend is Backend.CPU else llama.device(options.backend, options.device)
    free_before = _free_bytes(llama, gpu)
    # On a GPU the count of layers is listened to; on a CPU the log only costs time.
    llama.listen(wanted=gpu is not None or log.isEnabledFor(logging.DEBUG))
    model = _load_model(llama, options, gpu, free_before, progress, early)
    embedding, ranks = _pooled(llama, model)
    context = _make_context(llama, options, model, gpu, whole=bool(embedding))
    llama.listen(wanted=True)
    rows = options.rows
    if embedding:
        rows = _context_length(llama, model, options)
    piece = rows if gpu is not None else min(rows, CPU_PIECE_TOKENS)
    engine = LlamaEngine(
        llama,
        model,
        context,
        replace(_facts(llama, model, options), embedding=embedding, ranks=ranks),
        slots=options.slots,
        rows=rows,
        piece_tokens=piece,
    )
    if gpu is not None:
        _prove_offload(llama, options, model, gpu, free_before, engine)
    engine.warm_up()
    if gpu is not None:
        engine.facts = replace(engine.facts, device_bytes=max(free_before - llama.device_free_bytes(gpu), 0))
    return engine


def _load_model(
    llama: Llama,
    options: EngineOptions,
    gpu: int | None,
    free_before: int,
    progress: LoadProgress,
    early: EarlyModel | None,
) -> int:
    lib = llama.lib
    params, _devices = model_params(lib, gpu, mmap=options.mmap)
    layers = model_file.layers(options.model_path)
    size = options.model_path.stat().st_size
    wanted = True

    def on_progress(share: float, _data: object) -> bool:
        nonlocal wanted
        wanted = progress(share, layers)
        return wanted

    if on_progress(0.0, None) and size >= PROGRESS_WORTH_BYTES:
        params.progress_callback = lib.llama_progress_callback(on_progress)
    path = os.fsencode(options.model_path)
    model = _taken(llama, early, options, gpu)
    if not model and wanted:
        model = lib.llama_model_load_from_file(path, params)
    if model and on_progress(1.0, None):
        return int(model)
    if not wanted:
        if model:
            lib.llama_model_free(model)
        raise RbeeError(ErrorCode.CANCELED, "The loading was ended before the model was there.")
    llama.listen(wanted=True)  # once more, to hear why
    model = lib.llama_model_load_from_file(path, params)
    if model:
        return int(model)
    if size > free_before:
        raise _exhausted(options, size, free_before, "the model")
    raise model_file.invalid(options.model_path, f"llama.cpp says: {_last_errors(llama)}")


def _taken(llama: Llama, early: EarlyModel | None, options: EngineOptions, gpu: int | None) -> int | None:
    """Give the model that is there already if it is just what is wanted, and let go of it otherwise."""
    if early is None or (model := early.take()) is None:
        return None
    unheard = not log.isEnabledFor(logging.DEBUG)  # what llama.cpp says of the model is wanted then
    if early.path == options.model_path and gpu is None and options.mmap and unheard:
        return model
    llama.lib.llama_model_free(model)
    return None


def _make_context(llama: Llama, options: EngineOptions, model: int, gpu: int | None, *, whole: bool) -> int:
    """Make the context; where texts are read *whole*, for their embeddings, one at a time."""
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
        lib.llama_model_free(model)
        raise _exhausted(options, _cache_bytes(llama, model, options), _free_bytes(llama, gpu), "its context")
    return int(context)


def _flash_attention(llama: Llama, options: EngineOptions) -> int:
    """Choose: as asked, else wherever the device can; a quantised cache needs it."""
    if options.flash_attention is None and options.cache_type != "q8_0":
        return int(llama.lib.LLAMA_FLASH_ATTN_TYPE_AUTO)
    if options.flash_attention is False:
        return int(llama.lib.LLAMA_FLASH_ATTN_TYPE_DISABLED)
    return int(llama.lib.LLAMA_FLASH_ATTN_TYPE_ENABLED)


def default_threads() -> int:
    """Count the physical cores that this process may use: a second thread on one core slows both."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    logical = psutil.cpu_count() or allowed
    physical = psutil.cpu_count(logical=False) or logical
    return max(1, math.ceil(allowed * physical / logical))


def _context_length(llama: Llama, model: int, options: EngineOptions) -> int:
    return options.context or min(int(llama.lib.llama_model_n_ctx_train(model)), DEFAULT_CONTEXT)


def _pooled(llama: Llama, model: int) -> tuple[int, bool]:
    """Give how many numbers the model makes of a text, and whether they rank; none for one that writes.

    Its file says how to pool, which only such models' do.
    """
    lib = llama.lib
    buffer = ctypes.create_string_buffer(64)
    if lib.llama_model_meta_val_str(model, b"general.architecture", buffer, len(buffer)) < 0:
        return 0, False
    key = buffer.value + b".pooling_type"
    said = lib.llama_model_meta_val_str(model, key, buffer, len(buffer)) > 0
    pooling = int(buffer.value) if said else None
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


def _prove_offload(
    llama: Llama, options: EngineOptions, model: int, gpu: int, free_before: int, engine: LlamaEngine
) -> None:
    """Close the engine and raise CUDA_DEVICE_FAILED unless the model is on the device."""
    taken = free_before - llama.device_free_bytes(gpu)
    reason = not_offloaded(llama.offloaded, taken, llama.lib.llama_model_size(model))
    if reason is None:
        return
    engine.close()
    raise RbeeError(
        ErrorCode.CUDA_DEVICE_FAILED,
        f"The model is not on {options.backend} device {options.device}: {reason}.",
        details={"backend": options.backend.value, "device": options.device, "taken_mb": taken // _MB},
    )


def not_offloaded(layers: tuple[int, int] | None, taken_bytes: int, size_bytes: int) -> str | None:
    """Say why a model is not on its GPU; None if it is.

    Words in a log are no proof, so the device must also have lost memory; lost memory alone would not show a single
    layer that stayed behind, so llama.cpp's own count must be all of them.

    Args:
        layers: how many of how many llama.cpp says to have offloaded; None if it did not say.
        taken_bytes: what the device had free before the load, less what it has free now.
    """
    if layers is not None and layers[0] < layers[1]:
        return f"{layers[0]} of {layers[1]} layers are"
    if taken_bytes < size_bytes * _OFFLOADED_SHARE:
        return f"{taken_bytes // _MB} MB of {size_bytes // _MB} MB were taken there"
    return None


def _exhausted(options: EngineOptions, need: int, have: int, what: str) -> RbeeError:
    where = "memory" if options.backend is Backend.CPU else f"memory on {options.backend} device {options.device}"
    return RbeeError(
        _EXHAUSTED[options.backend],
        f"Not enough {where} for {what}: {need // _MB} MB needed, {have // _MB} MB free.",
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
    return int(psutil.virtual_memory().available) if gpu is None else llama.device_free_bytes(gpu)


def _last_errors(llama: Llama) -> str:
    return "; ".join(list(llama.errors)[-2:]) or "nothing"
