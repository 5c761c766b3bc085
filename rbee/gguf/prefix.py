"""Read the first bytes of a GGUF file: check that it is one, and look up its number of layers.

For a worker's start, which the full reader of `header` would delay by 35 ms with the demo model.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.gguf.types import ARRAY, SCALARS, STRING

MAGIC: Final = b"GGUF"
KNOWN_VERSIONS: Final = (2, 3)
_PREFIX: Final = struct.Struct("<4sIQQ")  # magic, version, tensors, metadata keys
_VOCABULARY: Final = 1000  # a longer list of strings is the vocabulary, which takes too long to skip
_LAYERS_KEY: Final = ".block_count"


def check_file(path: Path) -> None:
    """Raise RbeeError MODEL_NOT_FOUND, PERMISSION_DENIED or MODEL_INVALID unless *path* begins like a GGUF file."""
    try:
        with path.open("rb") as file:
            head = file.read(_PREFIX.size)
    except FileNotFoundError as error:
        raise RbeeError(ErrorCode.MODEL_NOT_FOUND, f"There is no model file {path}.") from error
    except IsADirectoryError as error:
        raise invalid_model(path, "it is a directory") from error
    except OSError as error:
        raise RbeeError(
            ErrorCode.PERMISSION_DENIED,
            f"The model file {path} cannot be read: {error.strerror}.",
            hint="Make it readable for the user that runs the worker.",
        ) from error
    if not head:
        raise invalid_model(path, "it is empty")
    if not head.startswith(MAGIC):
        raise invalid_model(path, f"it is not a GGUF file (it begins with {head[:4]!r}, not {MAGIC!r})")
    if len(head) < _PREFIX.size:
        raise invalid_model(path, f"it is truncated: it ends after {len(head)} bytes, within the GGUF header")
    _, version, tensors, _ = _PREFIX.unpack(head)
    if version not in KNOWN_VERSIONS:
        raise invalid_model(path, f"its GGUF version is {version}; supported are 2 and 3")
    if tensors == 0:
        raise invalid_model(path, "it contains no tensors")


def read_layer_count(path: Path) -> int:
    """Return the number of layers; 0 where the metadata does not state it before the vocabulary."""
    try:
        with path.open("rb") as file:
            _, _, _, keys = _PREFIX.unpack(file.read(_PREFIX.size))
            for _ in range(keys):
                key = file.read(_number(file, 8)).decode("utf-8", "replace")
                value = _value(file, _number(file, 4))
                if key.endswith(_LAYERS_KEY):
                    return int.from_bytes(value, "little")
    except (OSError, KeyError, struct.error, OverflowError, MemoryError):
        return 0  # llama.cpp will report what is wrong with the file
    return 0


def invalid_model(path: Path, reason: str) -> RbeeError:
    """Build the error for a file that is not a usable model."""
    return RbeeError(ErrorCode.MODEL_INVALID, f"{path} is not a usable model: {reason}.", details={"path": str(path)})


def _value(file: BinaryIO, kind: int) -> bytes:
    """Read a scalar; skip a string or a list, and return nothing for it."""
    if kind == STRING:
        file.seek(_number(file, 8), os.SEEK_CUR)
        return b""
    if kind != ARRAY:
        return file.read(struct.calcsize(SCALARS[kind]))
    item, count = _number(file, 4), _number(file, 8)
    if item == STRING:
        if count > _VOCABULARY:
            raise KeyError(item)
        for _ in range(count):
            file.seek(_number(file, 8), os.SEEK_CUR)
    else:
        file.seek(count * struct.calcsize(SCALARS[item]), os.SEEK_CUR)
    return b""


def _number(file: BinaryIO, size: int) -> int:
    return int.from_bytes(file.read(size), "little")
