"""Read the first bytes of a GGUF file: check that it is one, and look up its number of layers.

For a worker's start, which the full reader of `header` would delay by 35 ms with the demo model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.gguf.reader import (
    COPY_AGAIN,
    MAX_LAYERS,
    NAME_THE_MODEL,
    HeaderError,
    ShortHeaderError,
    find_number,
    read_start,
)
from rbee.gguf.split import is_part

_LAYERS_KEY: Final = ".block_count"
# The metadata of the architecture comes before the vocabulary, which takes too long to skip.
_READ_BYTES: Final = 256 * 1024


def check_file(path: Path) -> None:
    """Raise RbeeError MODEL_NOT_FOUND, PERMISSION_DENIED or MODEL_INVALID unless *path* begins like a GGUF file."""
    try:
        with path.open("rb") as file:
            head = file.read(24)
    except FileNotFoundError as error:
        raise RbeeError(ErrorCode.MODEL_NOT_FOUND, f"There is no model file {path}.") from error
    except IsADirectoryError as error:
        raise invalid_model(path, "it is a directory", "Name the .gguf file itself.") from error
    except OSError as error:
        raise RbeeError(
            ErrorCode.PERMISSION_DENIED,
            f"The model file {path} cannot be read: {error.strerror}.",
            hint="Make it readable for the user that runs the worker.",
        ) from error
    try:
        start = read_start(head)
    except HeaderError as error:
        raise invalid_model(path, error.reason, error.hint) from error
    except ShortHeaderError as error:
        raise invalid_model(
            path, f"it is truncated: it ends after {len(head)} bytes, within the GGUF header", COPY_AGAIN
        ) from error
    if start.tensors == 0 and not is_part(path.name):  # the first part of a split model may have none
        raise invalid_model(path, "it contains no tensors", NAME_THE_MODEL)


def read_layer_count(path: Path) -> int:
    """Return the number of layers; 0 where the first bytes do not state it, or where they are wrong."""
    try:
        with path.open("rb") as file:
            data = file.read(_READ_BYTES)
        layers = find_number(data, read_start(data).keys, _LAYERS_KEY) or 0
    except (OSError, HeaderError, ShortHeaderError):
        return 0  # llama.cpp will report what is wrong with the file
    return layers if 0 < layers <= MAX_LAYERS else 0


def invalid_model(path: Path, reason: str, hint: str) -> RbeeError:
    """Build the error for a file that is not a usable model; *hint* says what to do about this *reason*.

    Clients of the queen are shown the reason, but for what is in parentheses, unless a path is in it.
    """
    return RbeeError(
        ErrorCode.MODEL_INVALID,
        f"{path} is not a usable model: {reason}.",
        details={"path": str(path), "reason": reason},
        hint=hint,
    )
