"""Look at a model file before an engine does, so that the common mistakes are named and not guessed."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

MAGIC: Final = b"GGUF"
_HEADER: Final = struct.Struct("<4sIQQ")  # magic, version, tensors, metadata keys
_KNOWN_VERSIONS: Final = (2, 3)
_STRING: Final = 8  # enum gguf_type
_ARRAY: Final = 9
_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_VOCABULARY: Final = 1000  # a longer array of strings is the vocabulary: not worth walking through
_LAYERS_KEY: Final = ".block_count"


def check(path: Path) -> None:
    """Raise RbeeError MODEL_NOT_FOUND, PERMISSION_DENIED or MODEL_INVALID unless *path* begins like a GGUF file."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
    except FileNotFoundError as error:
        raise RbeeError(ErrorCode.MODEL_NOT_FOUND, f"There is no model file {path}.") from error
    except IsADirectoryError as error:
        raise invalid(path, "it is a folder, not a GGUF file") from error
    except OSError as error:
        raise RbeeError(
            ErrorCode.PERMISSION_DENIED,
            f"The model file {path} cannot be read: {error.strerror}.",
            hint="Make it readable for the user that the worker runs as.",
        ) from error
    if not head:
        raise invalid(path, "the file is empty")
    if not head.startswith(MAGIC):
        raise invalid(path, f"it is no GGUF file (it begins with {head[:4]!r}, not {MAGIC!r})")
    if len(head) < _HEADER.size:
        raise invalid(path, f"it ends after {len(head)} bytes, within the GGUF header")
    _, version, tensors, _ = _HEADER.unpack(head)
    if version not in _KNOWN_VERSIONS:
        raise invalid(path, f"its GGUF version is {version}, known are {_KNOWN_VERSIONS}")
    if tensors == 0:
        raise invalid(path, "it holds no tensors")


def layers(path: Path) -> int:
    """Read the number of layers from the metadata; 0 where it is not said before the vocabulary begins."""
    try:
        with path.open("rb") as file:
            _, _, _, keys = _HEADER.unpack(file.read(_HEADER.size))
            for _ in range(keys):
                key = file.read(_number(file, 8)).decode("utf-8", "replace")
                kind = _number(file, 4)
                value = _value(file, kind)
                if key.endswith(_LAYERS_KEY):
                    return int.from_bytes(value, "little")
    except (OSError, KeyError, struct.error, OverflowError, MemoryError):
        return 0  # llama.cpp will say what is wrong with the file
    return 0


def _value(file: BinaryIO, kind: int) -> bytes:
    """Read a plain value; a string or an array is passed over and gives nothing."""
    if kind == _STRING:
        file.seek(_number(file, 8), os.SEEK_CUR)
        return b""
    if kind != _ARRAY:
        return file.read(_SIZES[kind])
    item, count = _number(file, 4), _number(file, 8)
    if item == _STRING and count > _VOCABULARY:
        raise KeyError(item)
    for _ in range(count if item == _STRING else 0):
        file.seek(_number(file, 8), os.SEEK_CUR)
    file.seek(count * _SIZES.get(item, 0), os.SEEK_CUR)
    return b""


def _number(file: BinaryIO, size: int) -> int:
    return int.from_bytes(file.read(size), "little")


def invalid(path: Path, reason: str) -> RbeeError:
    """Make the error for a file that is no usable model."""
    return RbeeError(ErrorCode.MODEL_INVALID, f"{path} is not a usable model: {reason}.", details={"path": str(path)})
