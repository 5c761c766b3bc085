"""Look at a model file before an engine does, so that the common mistakes are named and not guessed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

MAGIC: Final = b"GGUF"
_HEADER: Final = struct.Struct("<4sIQQ")  # magic, version, tensors, metadata keys
_KNOWN_VERSIONS: Final = (2, 3)


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


def invalid(path: Path, reason: str) -> RbeeError:
    """Make the error for a file that is no usable model."""
    return RbeeError(ErrorCode.MODEL_INVALID, f"{path} is not a usable model: {reason}.", details={"path": str(path)})
