"""Walk the header of a GGUF file: metadata and tensors, within bounds. Pure: bytes go in.

Nothing is believed: every length is compared with the bytes that are there before anything is taken or allocated, so
that time and memory are linear in the size of the header, whatever it claims. Only the values that somebody asks for
are kept, lists of them as the bytes that they are. It imports little, because a child process reads with it.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from rbee.gguf.types import ARRAY, BLOCKS, SCALARS, STRING

MAGIC: Final = b"GGUF"
KNOWN_VERSIONS: Final = (2, 3)
MAX_KEYS: Final = 65_536
MAX_TENSORS: Final = 65_536
MAX_KEY_BYTES: Final = 65_535  # of the format's specification
MAX_KEPT: Final = 256
MAX_TEXT_BYTES: Final = 1024 * 1024
MAX_DIMENSIONS: Final = 4  # of ggml, as is the next
MAX_TENSOR_NAME_BYTES: Final = 63
MAX_LAYERS: Final = 4096
MAX_ALIGNMENT: Final = 1024 * 1024
DEFAULT_ALIGNMENT: Final = 32

# The embedding of the input is looked up, not multiplied.
_MULTIPLIED: Final = (b"blk.", b"output.")
_START: Final = struct.Struct("<4sIQQ")
_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_LAYOUTS: Final = {kind: struct.Struct("<" + layout) for kind, layout in SCALARS.items()}
_FLOATS: Final = {6: "f", 12: "d"}


COPY_AGAIN: Final = "Download or copy the file again."
CONVERT_FORMAT: Final = "Use a GGUF file of the model; llama.cpp's convert_hf_to_gguf.py makes one from safetensors."
CONVERT_ORDER: Final = "Use the little-endian file of the model, or convert this one: gguf-convert-endian FILE little"
NEWER_FORMAT: Final = "Use a file of GGUF version 2 or 3, or upgrade rbee if this version is newer."
NAME_THE_FIRST: Final = (
    "Name the first part, NAME-00001-of-0000N.gguf, with all others beside it under the names that they were given."
)
NAME_THE_MODEL: Final = "Name the model that it belongs to."
OTHER_FILE: Final = "The file is damaged or was made wrongly: download it again, or use another file of the model."


class HeaderError(Exception):
    """Raised for a header that cannot be one of a model.

    `reason` is the end of a sentence about the file, `hint` what to do.
    """

    def __init__(self, reason: str, hint: str = OTHER_FILE) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


class ShortHeaderError(Exception):
    """Raised when the bytes end before the header does."""


class Start(NamedTuple):
    """The first 24 bytes: how many tensors and keys follow."""

    tensors: int
    keys: int


class Text(NamedTuple):
    """A string, as its bytes."""

    raw: bytes


class Items(NamedTuple):
    """A list: the type and number of its items, and its bytes unless they are strings."""

    kind: int
    length: int
    raw: bytes


class Number(NamedTuple):
    """A scalar with its type."""

    kind: int
    value: Any


Value = Text | Items | Number


class Tensors(NamedTuple):
    """The tensors: how many, where the last one ends, and the bytes of matrices that are multiplied, by type."""

    total: int
    end: int
    matrices: dict[int, int]


def read_start(data: bytes) -> Start:
    """Read the beginning. Raises HeaderError, or ShortHeaderError."""
    if not data:
        raise HeaderError("it is empty", COPY_AGAIN)
    if not data.startswith(MAGIC[: len(data)]):
        raise HeaderError(f"it is not a GGUF file (it begins with {data[:4]!r}, not {MAGIC!r})", CONVERT_FORMAT)
    if len(data) < _START.size:
        raise ShortHeaderError
    _, version, tensors, keys = _START.unpack_from(data)
    if int.from_bytes(version.to_bytes(4, "little"), "big") in KNOWN_VERSIONS:
        raise HeaderError("its numbers are big-endian, those of machines of another kind", CONVERT_ORDER)
    if version not in KNOWN_VERSIONS:
        raise HeaderError(f"its GGUF version is {version}; supported are 2 and 3", NEWER_FORMAT)
    if tensors > MAX_TENSORS or keys > MAX_KEYS:
        raise HeaderError(f"its header claims {tensors} tensors and {keys} keys")
    return Start(tensors, keys)


def read_metadata(data: bytes, keys: int, wanted: Callable[[str], bool]) -> tuple[dict[str, Value], int]:
    """Return the values of the *wanted* keys, and where the tensors begin. Raises as `read_start` does."""
    position = _START.size
    kept: dict[str, Value] = {}
    for _ in range(keys):
        raw, position = _string(data, position, MAX_KEY_BYTES, "a key")
        key = raw.decode("utf-8", "replace")
        kind, position = _u32(data, position)
        keep = wanted(key)
        value, position = _value(data, position, kind, key, keep=keep)
        if value is not None:
            if key in kept:
                raise HeaderError(f"its header has '{key}' twice")
            if len(kept) == MAX_KEPT:
                raise HeaderError(f"its header has more than {MAX_KEPT} keys such as '{_shown(key)}'")
            kept[key] = value
    return kept, position


def find_number(data: bytes, keys: int, suffix: str) -> int | None:
    """Return the first whole number whose key ends with *suffix*; None where it does not come before *data* ends."""
    position = _START.size
    try:
        for _ in range(keys):
            raw, position = _string(data, position, MAX_KEY_BYTES, "a key")
            key = raw.decode("utf-8", "replace")
            kind, position = _u32(data, position)
            value, position = _value(data, position, kind, key, keep=key.endswith(suffix))
            if isinstance(value, Number) and isinstance(value.value, int):
                return int(value.value)
    except (HeaderError, ShortHeaderError):
        return None
    return None


def read_tensors(data: bytes, position: int, count: int, alignment: int) -> Tensors:
    """Read where the tensors lie, which begin at *position*. Raises as `read_start` does."""
    end = 0
    matrices: dict[int, int] = {}
    for number in range(count):
        name, position = _string(data, position, MAX_TENSOR_NAME_BYTES, "a tensor's name")
        dimensions, position = _u32(data, position)
        if dimensions > MAX_DIMENSIONS:
            raise HeaderError(f"tensor {number} claims {dimensions} dimensions; at most {MAX_DIMENSIONS} are possible")
        if position + 8 * dimensions + 12 > len(data):
            raise ShortHeaderError
        sizes = struct.unpack_from(f"<{dimensions}Q", data, position)
        kind, offset = struct.unpack_from("<IQ", data, position + 8 * dimensions)
        position += 8 * dimensions + 12
        if offset % alignment:
            raise HeaderError(f"tensor {number} begins at {offset}, which is not a multiple of {alignment}")
        # A type newer than the table counts for nothing: the check is then weaker, not wrong.
        per_block, block_bytes = BLOCKS.get(kind, (1, 0))
        if sizes and sizes[0] % per_block:
            raise HeaderError(f"tensor {number} has rows of {sizes[0]} numbers, which its blocks do not divide")
        length = math.prod(sizes) // per_block * block_bytes
        end = max(end, offset + length)
        if dimensions >= 2 and name.startswith(_MULTIPLIED):
            matrices[kind] = matrices.get(kind, 0) + length
    return Tensors(count, -(-position // alignment) * alignment + end if count else position, matrices)


def _u32(data: bytes, position: int) -> tuple[int, int]:
    if position + 4 > len(data):
        raise ShortHeaderError
    return int(_U32.unpack_from(data, position)[0]), position + 4


def _string(data: bytes, position: int, most: int, what: str) -> tuple[bytes, int]:
    if position + 8 > len(data):
        raise ShortHeaderError
    length = _U64.unpack_from(data, position)[0]
    start, end = position + 8, position + 8 + length
    if end > len(data):
        raise ShortHeaderError
    if length > most:
        raise HeaderError(f"{what} claims {length} bytes; at most {most} are possible")
    return data[start:end], end


def _value(data: bytes, position: int, kind: int, key: str, *, keep: bool) -> tuple[Value | None, int]:
    if kind == STRING:
        if keep:
            raw, position = _string(data, position, MAX_TEXT_BYTES, f"'{_shown(key)}'")
            return Text(raw), position
        return None, _skip_strings(data, position, 1)
    if kind == ARRAY:
        items, position = _array(data, position, key, keep=keep)
        return (items if keep else None), position
    layout = _LAYOUTS.get(kind)
    if layout is None:
        raise HeaderError(f"'{_shown(key)}' has the unknown type {kind}")
    if position + layout.size > len(data):
        raise ShortHeaderError
    value = layout.unpack_from(data, position)[0]
    if kind in _FLOATS and not math.isfinite(value):
        raise HeaderError(f"'{_shown(key)}' is {value}")
    return (Number(kind, value) if keep else None), position + layout.size


def _array(data: bytes, position: int, key: str, *, keep: bool) -> tuple[Items, int]:
    kind, position = _u32(data, position)
    if position + 8 > len(data):
        raise ShortHeaderError
    count = _U64.unpack_from(data, position)[0]
    position += 8
    if kind == STRING:
        return Items(kind, count, b""), _skip_strings(data, position, count)
    layout = _LAYOUTS.get(kind)
    if layout is None:
        raise HeaderError(f"'{_shown(key)}' is a list of the type {kind}")
    end = position + count * layout.size
    if end > len(data):
        raise ShortHeaderError
    if kind in _FLOATS:
        _check_floats(data[position:end], kind, key)
    return Items(kind, count, data[position:end] if keep else b""), end


def _skip_strings(data: bytes, position: int, count: int) -> int:
    # Each takes 8 bytes at least: this bounds the loop below.
    if position + 8 * count > len(data):
        raise ShortHeaderError
    unpack, limit = _U64.unpack_from, len(data) - 8
    for _ in range(count):
        if position > limit:
            raise ShortHeaderError
        position += 8 + unpack(data, position)[0]
    if position > len(data):
        raise ShortHeaderError
    return position


def _check_floats(raw: bytes, kind: int, key: str) -> None:
    numbers = array(_FLOATS[kind], raw)
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        numbers.byteswap()
    if math.isnan(sum(numbers)) and any(map(math.isnan, numbers)):
        raise HeaderError(f"'{_shown(key)}' holds a number that is none (NaN)")


def _shown(key: str) -> str:
    """Return a key as a message can show it."""
    return ascii(key[:100])[1:-1]
