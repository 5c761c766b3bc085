"""Read the header of a GGUF file, and check that the file is whole.

The reader of the `gguf` library maps every tensor and every vocabulary entry: 2.8 s for the 49,000 entries of the
demo model, in front of each cold start. This one skips what is not used (20 ms), bounds every count, and adds up
what the tensors need, so that a truncated file is refused before a worker is started for it.
"""

from __future__ import annotations

import math
import re
import stat
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.gguf.types import BLOCKS, FILE_TYPES, SCALARS

MAGIC: Final = b"GGUF"
MAX_HEADER_BYTES: Final = 256 * 1024 * 1024
MAX_ENTRIES: Final = 1_000_000
MAX_ARRAY_ITEMS: Final = 16_000_000
KEPT_ARRAY_ITEMS: Final = 4096
_PREFIXES: Final = (8 * 1024 * 1024, 64 * 1024 * 1024, MAX_HEADER_BYTES)
_SPLIT_NAME: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf\Z", re.IGNORECASE)

# The embedding of the input is looked up, not multiplied.
_MULTIPLIED: Final = ("blk.", "output.")

_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The header of a model; `size_bytes` counts all parts of a split model.

    `kv_bytes_per_token` is the key and value cache of one token over all layers, in 16-bit numbers.
    `matrix_bytes` adds up the matrices that tokens are multiplied with, by tensor type. `heads` are those of attention
    in a layer, and `head_widths` the numbers in a key and in a value of one of them.
    """

    size_bytes: int
    architecture: str | None
    name: str | None
    quantization: str | None
    context_length: int | None
    layers: int | None
    embedding_length: int | None
    vocabulary_size: int | None
    end_token: int | None
    has_chat_template: bool
    kv_bytes_per_token: int
    feed_forward_length: int | None = None
    matrix_bytes: Mapping[int, int] = field(default_factory=dict)
    heads: int | None = None
    head_widths: tuple[int, int] | None = None


class _Part(NamedTuple):
    """A file of a model, and what shows that it has changed."""

    path: Path
    size: int
    inode: int
    changed_ns: int


def parts_of(path: Path) -> list[Path]:
    """List all files of the model that *path* is, or is the first part of."""
    match = _SPLIT_NAME.match(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    return [path.with_name(f"{match['stem']}-{number:05d}-of-{match['count']}.gguf") for number in range(1, count + 1)]


def read_header(path: Path) -> GgufHeader:
    """Read the header of the model at *path* and check that every part of it is whole; once for files as they are.

    Raises:
        RbeeError: MODEL_NOT_FOUND if a part is missing; MODEL_INVALID if one is not GGUF, or truncated;
            PERMISSION_DENIED if it cannot be read.
    """
    return _read_parts(tuple(_regular(part) for part in parts_of(path)))


@lru_cache(maxsize=16)
def _read_parts(parts: tuple[_Part, ...]) -> GgufHeader:
    first: dict[str, Any] = {}
    matrices: Counter[int] = Counter()
    for part in parts:
        metadata = _read_part(part.path, part.size, matrices)
        first = first or metadata
    return _describe(first, sum(part.size for part in parts), matrices)


def _regular(path: Path) -> _Part:
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RbeeError(
            ErrorCode.MODEL_NOT_FOUND,
            f"There is no file {path}.",
            details={"path": str(path)},
            hint="Check the path; a split model needs all of its parts side by side.",
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(info.st_mode):
        _refuse(path, "it is not a regular file")
    return _Part(path, info.st_size, info.st_ino, info.st_ctime_ns)


def _read_part(path: Path, size: int, matrices: Counter[int]) -> dict[str, Any]:
    if size == 0:
        _refuse(path, "it is empty")
    try:
        with path.open("rb") as file:
            prefix = b""
            for wanted in _PREFIXES:
                prefix += file.read(wanted - len(prefix))
                try:
                    metadata, found = _parse(path, prefix, size)
                except (struct.error, IndexError) as error:
                    if len(prefix) >= size:
                        _refuse(path, "it is truncated: its header breaks off", cause=error)
                else:
                    matrices.update(found)
                    return metadata
    except OSError as error:
        raise _unreadable(path, error) from error
    return _refuse(path, f"its header is longer than {MAX_HEADER_BYTES} bytes")


def _parse(path: Path, data: bytes, size: int) -> tuple[dict[str, Any], Counter[int]]:
    """Read metadata and add up the matrices by type. Raises struct.error or IndexError where *data* is too short."""
    if data[:4] != MAGIC:
        _refuse(path, "it does not begin with the letters GGUF")
    version = _U32.unpack_from(data, 4)[0]
    if version not in (2, 3):
        _refuse(path, f"its GGUF version is {version}, known are 2 and 3")
    tensors, entries = struct.unpack_from("<QQ", data, 8)
    if tensors > MAX_ENTRIES or entries > MAX_ENTRIES:
        _refuse(path, f"its header claims {tensors} tensors and {entries} entries")
    position = 24
    metadata: dict[str, Any] = {}
    for _ in range(entries):
        key, position = _string(data, position)
        kind = _U32.unpack_from(data, position)[0]
        value, position = _value(path, data, position + 4, kind)
        metadata[key] = value
    end = 0
    matrices: Counter[int] = Counter()
    for _ in range(tensors):
        tensor, position = _string(data, position)
        dimensions = _U32.unpack_from(data, position)[0]
        if dimensions > 8:
            _refuse(path, f"a tensor claims {dimensions} dimensions")
        items = math.prod(struct.unpack_from(f"<{dimensions}Q", data, position + 4))
        kind, offset = struct.unpack_from("<IQ", data, position + 4 + 8 * dimensions)
        position += 16 + 8 * dimensions
        # A type newer than the table counts for nothing: the check is then weaker, not wrong.
        per_block, block_bytes = BLOCKS.get(kind, (1, 0))
        length = items // per_block * block_bytes
        end = max(end, offset + length)
        if dimensions >= 2 and tensor.startswith(_MULTIPLIED):
            matrices[kind] += length
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        _refuse(path, f"its alignment is {alignment}")
    needed = -(-position // alignment) * alignment + end if tensors else position
    if size < needed:
        _refuse(path, f"it is truncated: {size} bytes long, its tensors need {needed}")
    return metadata, matrices


def _string(data: bytes, position: int) -> tuple[str, int]:
    start = position + 8
    end = start + _U64.unpack_from(data, position)[0]
    if end > len(data):
        raise IndexError(end)
    return data[start:end].decode("utf-8", "replace"), end


def _value(path: Path, data: bytes, position: int, kind: int) -> tuple[Any, int]:
    if kind == _STRING:
        return _string(data, position)
    if kind == _ARRAY:
        return _array(path, data, position)
    if kind not in SCALARS:
        _refuse(path, f"its header has a value of the unknown type {kind}")
    layout = SCALARS[kind]
    return struct.unpack_from("<" + layout, data, position)[0], position + struct.calcsize("<" + layout)


def _array(path: Path, data: bytes, position: int) -> tuple[Any, int]:
    """Return a short list of numbers as it is, anything longer as its length."""
    kind, count = struct.unpack_from("<IQ", data, position)
    position += 12
    if count > MAX_ARRAY_ITEMS:
        _refuse(path, f"its header has a list of {count} items")
    if kind == _STRING:
        unpack, limit = _U64.unpack_from, len(data)
        for _ in range(count):
            position += 8 + unpack(data, position)[0]
            if position > limit:
                raise IndexError(position)
        return range(count), position
    if kind == _ARRAY or kind not in SCALARS:
        _refuse(path, f"its header has a list of the unknown type {kind}")
    layout = SCALARS[kind]
    end = position + count * struct.calcsize("<" + layout)
    if end > len(data):
        raise IndexError(end)
    if count > KEPT_ARRAY_ITEMS:
        return range(count), end
    return list(struct.unpack_from(f"<{count}{layout}", data, position)), end


def _describe(metadata: dict[str, Any], size_bytes: int, matrices: Mapping[int, int]) -> GgufHeader:
    architecture = _text(metadata.get("general.architecture"))

    def number(key: str) -> int | None:
        value = metadata.get(f"{architecture}.{key}")
        return value if isinstance(value, int) and value >= 0 else None

    layers, embedding = number("block_count"), number("embedding_length")
    tokens = metadata.get("tokenizer.ggml.tokens")
    vocabulary = len(tokens) if isinstance(tokens, list | range) else number("vocab_size")
    end_token = metadata.get("tokenizer.ggml.eos_token_id")
    file_type = metadata.get("general.file_type")
    heads, head_widths = _heads(metadata, architecture, embedding or 0)
    return GgufHeader(
        size_bytes=size_bytes,
        architecture=architecture,
        name=_text(metadata.get("general.name")),
        quantization=FILE_TYPES.get(file_type) if isinstance(file_type, int) else None,
        context_length=number("context_length"),
        layers=layers,
        embedding_length=embedding,
        vocabulary_size=vocabulary,
        end_token=end_token if isinstance(end_token, int) else None,
        has_chat_template=bool(metadata.get("tokenizer.chat_template")),
        kv_bytes_per_token=_kv_bytes_per_token(metadata, architecture, layers or 0, embedding or 0),
        feed_forward_length=number("feed_forward_length"),
        matrix_bytes=dict(matrices),
        heads=heads,
        head_widths=head_widths,
    )


def _heads(
    metadata: dict[str, Any], architecture: str | None, embedding: int
) -> tuple[int | None, tuple[int, int] | None]:
    """Return the most heads of any layer, and the widths of a key and of a value; None where they are not stated."""
    heads = metadata.get(f"{architecture}.attention.head_count")
    most = max(heads, default=0) if isinstance(heads, list) else heads
    if not isinstance(most, int) or most <= 0:
        return None, None
    names = (f"{architecture}.attention.key_length", f"{architecture}.attention.value_length")
    key, value = (metadata.get(name, embedding // most) for name in names)
    return most, (key, value) if isinstance(key, int) and isinstance(value, int) else None


def _kv_bytes_per_token(metadata: dict[str, Any], architecture: str | None, layers: int, embedding: int) -> int:
    """Add up keys and values of all layers; models differ in heads a layer, so that may be a list."""
    heads = metadata.get(f"{architecture}.attention.head_count") or 1
    most_heads = max(heads) if isinstance(heads, list) else heads
    kv_heads = metadata.get(f"{architecture}.attention.head_count_kv", heads)
    all_kv_heads = sum(kv_heads) if isinstance(kv_heads, list) else kv_heads * layers
    default_width = embedding // max(most_heads, 1)
    key_width = metadata.get(f"{architecture}.attention.key_length", default_width)
    value_width = metadata.get(f"{architecture}.attention.value_length", default_width)
    try:
        return max(int(all_kv_heads * (key_width + value_width) * 2), 0)
    except TypeError:
        return layers * embedding * 2 * 2


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _refuse(path: Path, reason: str, *, cause: Exception | None = None) -> NoReturn:
    raise RbeeError(
        ErrorCode.MODEL_INVALID, f"{path} is not a model that can be loaded: {reason}.", details={"path": str(path)}
    ) from cause


def _unreadable(path: Path, error: OSError) -> RbeeError:
    return RbeeError(
        ErrorCode.PERMISSION_DENIED,
        f"{path} cannot be read: {error.strerror}.",
        details={"path": str(path)},
        hint="Let the user that runs the hive read the file.",
    )
