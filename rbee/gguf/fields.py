"""Check what the header of a GGUF file says of its model, each field by type and range. Pure but for `read_parts`.

What is checked is what llama.cpp and the estimate of memory take from it. Imports as little as `reader` does.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any, Final

from rbee.gguf.reader import (
    COPY_AGAIN,
    DEFAULT_ALIGNMENT,
    MAX_ALIGNMENT,
    MAX_LAYERS,
    NAME_THE_FIRST,
    NAME_THE_MODEL,
    HeaderError,
    Items,
    Number,
    ShortHeaderError,
    Tensors,
    Text,
    Value,
    read_metadata,
    read_start,
    read_tensors,
)
from rbee.gguf.types import FILE_TYPES, SCALARS, STRING

MAX_HEADER_BYTES: Final = 64 * 1024 * 1024
MAX_NAME: Final = 256
MAX_WIDTH: Final = 1 << 20
MAX_HEADS: Final = 1 << 16
MAX_FEED_FORWARD: Final = 1 << 24
MAX_TOKENS: Final = 1 << 24
MAX_CONTEXT: Final = (1 << 31) - 1
_PREFIXES: Final = (8 * 1024 * 1024, MAX_HEADER_BYTES)
_WHOLE_NUMBERS: Final = frozenset({0, 1, 2, 3, 4, 5, 10, 11})
_ARCHITECTURE: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_OF_ARCHITECTURE: Final = (
    ".block_count",
    ".context_length",
    ".embedding_length",
    ".feed_forward_length",
    ".vocab_size",
    ".attention.head_count",
    ".attention.head_count_kv",
    ".attention.key_length",
    ".attention.value_length",
    ".pooling_type",
)
_GENERAL: Final = frozenset(
    {
        "general.architecture",
        "general.name",
        "general.type",
        "general.file_type",
        "general.alignment",
        "split.count",
        "split.no",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.scores",
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.eos_token_id",
        "tokenizer.chat_template",
    }
)

_POOLING_OF_PAIRS: Final = 4  # enum llama_pooling_type: the output of the ranking head
_TOOLS: Final = "tools"  # the variable of a chat template that has them
_THOUGHTS: Final = ("reasoning_content", "enable_thinking", "<think>")

_NO_MODELS: Final = {
    "mmproj": "a projector of images or sound",
    "adapter": "an adapter (LoRA)",
    "imatrix": "an importance matrix",
}

Facts = dict[str, Any]
"""The fields of a `GgufHeader`, as JSON values."""


def read_parts(paths: list[Path]) -> Facts:
    """Read the headers of all parts of a model, the first part first. Blocking.

    Raises:
        HeaderError: if one is not a header of a model; after the name of the file where that is not the first.
        OSError: if one cannot be read.
    """
    facts: Facts = {}
    matrices: dict[int, int] = {}
    size_bytes = tensors = 0
    for number, path in enumerate(paths):
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                metadata, found = _read_file(file, size)
            if number == 0:
                facts = describe(metadata, len(paths))
        except HeaderError as error:
            raise HeaderError(f"{path.name}: {error.reason}" if number else error.reason, error.hint) from error
        size_bytes += size
        tensors += found.total
        for kind, length in found.matrices.items():
            matrices[kind] = matrices.get(kind, 0) + length
    if not tensors:  # the first part of a split model may have none, all parts together may not
        raise HeaderError("it has no weights, only a vocabulary", NAME_THE_MODEL)
    return {**facts, "size_bytes": size_bytes, "matrix_bytes": matrices}


def parse(data: bytes, size: int) -> tuple[dict[str, Value], Tensors]:
    """Read a header at the beginning of *data*, of a file of *size* bytes; return metadata and tensors.

    Raises HeaderError, or ShortHeaderError where *data* ends before the header does.
    """
    start = read_start(data)
    metadata, position = read_metadata(data, start.keys, _wanted)
    alignment = _Fields(metadata, "").number("general.alignment", 1, MAX_ALIGNMENT) or DEFAULT_ALIGNMENT
    if alignment & (alignment - 1):
        raise HeaderError(f"'general.alignment' is {alignment}, which is not a power of two")
    tensors = read_tensors(data, position, start.tensors, alignment)
    if size < tensors.end:
        raise HeaderError(f"it is truncated: {size} bytes long, its tensors need {tensors.end}", COPY_AGAIN)
    return metadata, tensors


def describe(metadata: dict[str, Value], parts: int) -> Facts:
    """Check what the metadata of a model of so many *parts* says, and return it. Raises HeaderError."""
    kind = _Fields(metadata, "").text("general.type")
    if kind in _NO_MODELS:
        raise HeaderError(f"it is {_NO_MODELS[kind]}, not a model (its 'general.type' is '{kind}')", NAME_THE_MODEL)
    architecture = metadata.get("general.architecture")
    if architecture == Text(b"clip"):  # what had no 'general.type' yet
        raise HeaderError(f"it is {_NO_MODELS['mmproj']}, not a model", NAME_THE_MODEL)
    if not isinstance(architecture, Text) or not _ARCHITECTURE.match(architecture.raw):
        raise HeaderError("'general.architecture' is not the name of one")
    fields = _Fields(metadata, architecture.raw.decode("ascii"))
    count = fields.number("split.count", 0, 99_999)
    part = fields.number("split.no", 0, 99_998)
    if part:
        raise HeaderError(f"it is part {part + 1} of a split model", NAME_THE_FIRST)
    if count and count != parts:
        raise HeaderError(f"'split.count' is {count}, and {parts} files are named as its parts", NAME_THE_FIRST)
    layers = fields.number(".block_count", 0, MAX_LAYERS)
    embedding = fields.number(".embedding_length", 1, MAX_WIDTH)
    tokens = fields.tokens()
    vocabulary_size = fields.number(".vocab_size", 0, MAX_TOKENS)
    file_type = fields.number("general.file_type", 0, 1 << 16)
    heads = fields.numbers(".attention.head_count", 0, MAX_HEADS)
    kv_heads = fields.numbers(".attention.head_count_kv", 0, MAX_HEADS) or heads or [1]
    most_heads = max(heads or [0])
    widths = [fields.number(f".attention.{of}_length", 0, MAX_WIDTH) for of in ("key", "value")]
    default_width = (embedding or 0) // max(most_heads, 1)
    key, value = (default_width if width is None else width for width in widths)
    # Models differ in heads a layer, so that may be a list.
    all_kv_heads = sum(kv_heads) if len(kv_heads) > 1 else kv_heads[0] * (layers or 0)
    return {
        "architecture": fields.architecture,
        "name": (fields.text("general.name") or "")[:MAX_NAME] or None,
        "quantization": None if file_type is None else FILE_TYPES.get(file_type),
        "context_length": fields.number(".context_length", 1, MAX_CONTEXT),
        "layers": layers,
        "embedding_length": embedding,
        "vocabulary_size": vocabulary_size if tokens is None else tokens,
        "end_token": fields.number("tokenizer.ggml.eos_token_id", -1, (1 << 32) - 1),
        "has_chat_template": bool(fields.text("tokenizer.chat_template")),
        "capabilities": _capabilities(fields),
        "kv_bytes_per_token": all_kv_heads * (key + value) * 2,
        "feed_forward_length": max(fields.numbers(".feed_forward_length", 0, MAX_FEED_FORWARD) or [0]) or None,
        "heads": most_heads or None,
        "head_widths": (key, value) if most_heads else None,
    }


def _capabilities(fields: _Fields) -> list[str]:
    """Return what a model can do, as far as its header tells without its template being run."""
    pooling = fields.number(".pooling_type", 0, 1 << 16)
    if pooling:
        return ["rerank"] if pooling == _POOLING_OF_PAIRS else ["embeddings"]
    template = fields.text("tokenizer.chat_template") or ""
    tools = ["tools"] if _TOOLS in template else []
    thinking = ["thinking"] if any(mark in template for mark in _THOUGHTS) else []
    return ["completion", *tools, *thinking]


class _Fields:
    """The metadata of one model; names that begin with a dot are those of its architecture."""

    def __init__(self, metadata: dict[str, Value], architecture: str) -> None:
        self._metadata = metadata
        self.architecture = architecture

    def number(self, name: str, low: int, high: int) -> int | None:
        """Return a whole number; None where the header does not have it."""
        key, value = self._get(name)
        if value is None:
            return None
        if not isinstance(value, Number) or value.kind not in _WHOLE_NUMBERS:
            raise HeaderError(f"'{key}' is {_what(value)}; it has to be a whole number")
        return _in_range(key, int(value.value), low, high)

    def numbers(self, name: str, low: int, high: int) -> list[int]:
        """Return a whole number, or one for each layer, as a list; an empty one where the header has none."""
        key, value = self._get(name)
        if not isinstance(value, Items):
            number = self.number(name, low, high)
            return [] if number is None else [number]
        if value.kind not in _WHOLE_NUMBERS:
            raise HeaderError(f"'{key}' is {_what(value)}; it has to hold whole numbers")
        if not 0 < value.length <= MAX_LAYERS:
            raise HeaderError(f"'{key}' has {value.length} items; 1 to {MAX_LAYERS} are possible")
        found = struct.unpack(f"<{value.length}{SCALARS[value.kind]}", value.raw)
        return [_in_range(key, number, low, high) for number in found]

    def text(self, name: str) -> str | None:
        """Return a text; None where the header has none, or an empty one."""
        key, value = self._get(name)
        if value is None:
            return None
        if not isinstance(value, Text):
            raise HeaderError(f"'{key}' is {_what(value)}; it has to be a text")
        return value.raw.decode("utf-8", "replace") or None

    def tokens(self) -> int | None:
        """Return the length of the vocabulary; None where the header has none. The lists about it must agree."""
        key, tokens = self._get("tokenizer.ggml.tokens")
        if tokens is None:
            return None
        if not isinstance(tokens, Items) or tokens.kind != STRING:
            raise HeaderError(f"'{key}' is {_what(tokens)}; it has to be a list of texts")
        _in_range(key, tokens.length, 1, MAX_TOKENS)
        for name, kinds, items in (
            ("tokenizer.ggml.scores", frozenset({6}), "32-bit floats"),
            ("tokenizer.ggml.token_type", _WHOLE_NUMBERS, "whole numbers"),
        ):
            other, value = self._get(name)
            if value is None:
                continue
            if not isinstance(value, Items) or value.kind not in kinds:
                raise HeaderError(f"'{other}' is {_what(value)}; it has to be a list of {items}")
            if value.length != tokens.length:
                raise HeaderError(f"'{other}' has {value.length} items for {tokens.length} tokens")
        return tokens.length

    def _get(self, name: str) -> tuple[str, Value | None]:
        key = self.architecture + name if name.startswith(".") else name
        return key, self._metadata.get(key)


def _wanted(key: str) -> bool:
    return key in _GENERAL or key.endswith(_OF_ARCHITECTURE)


def _read_file(file: Any, size: int) -> tuple[dict[str, Value], Tensors]:
    for wanted in _PREFIXES:
        file.seek(0)
        try:
            return parse(file.read(min(wanted, size)), size)
        except ShortHeaderError:
            if size <= wanted:
                raise HeaderError("it is truncated: its header is incomplete", COPY_AGAIN) from None
    raise HeaderError(f"its header is longer than {MAX_HEADER_BYTES} bytes")


def _in_range(key: str, number: int, low: int, high: int) -> int:
    if not low <= number <= high:
        raise HeaderError(f"'{key}' is {number}; {low} to {high} are possible")
    return number


def _what(value: Value) -> str:
    match value:
        case Text():
            return "a text"
        case Items():
            return "a list"
        case Number(kind=7):
            return "a truth value"
        case Number(value=number):
            return f"the number {number}"
