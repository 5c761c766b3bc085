"""Read the header of a GGUF model in this process, and check that all of its files are complete.

The reader of the `gguf` library maps every tensor and every vocabulary entry: 2.8 s for the 49,000 entries of the
demo model, in front of each cold start. This one skips what is not needed (20 ms), bounds all lengths, and adds up
the sizes of the tensors, so that a truncated file is rejected before a worker is started for it.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.gguf.fields import Facts, read_parts
from rbee.gguf.prefix import invalid_model
from rbee.gguf.reader import OTHER_FILE, HeaderError
from rbee.gguf.split import part_names

if TYPE_CHECKING:  # a cold start reads a header before it needs pydantic
    from rbee.contracts.models import Capability


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """The metadata of a model; `size_bytes` counts all parts of a split model.

    `kv_bytes_per_token` is the key and value cache of one token over all layers, in 16-bit numbers.
    `matrix_bytes` adds up the matrices that tokens are multiplied with, by tensor type. `heads` are those of attention
    in a layer, and `head_widths` the numbers in a key and in a value of one of them. `capabilities` are what the model
    seems to be made for: what its chat template can do is known for sure once a worker has opened it.
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
    capabilities: tuple[Capability, ...] = ()

    @classmethod
    def of(cls, facts: Facts) -> GgufHeader:
        """Build it from what `fields.read_parts` found, or from the same after it was JSON."""
        widths = facts["head_widths"]
        matrices = {int(kind): size for kind, size in facts["matrix_bytes"].items()}
        changed = {"matrix_bytes": matrices, "head_widths": tuple(widths) if widths else None}
        return cls(**{**facts, **changed, "capabilities": tuple(facts["capabilities"])})


class Part(NamedTuple):
    """A file of a model, with the attributes by which a change of it is detected."""

    path: Path
    size: int
    inode: int
    changed_ns: int


def parts_of(path: Path) -> list[Path]:
    """Return all files of the model that *path* is, or is a part of."""
    return [path.with_name(name) for name in part_names(path.name)]


def present_parts(path: Path) -> tuple[Part, ...]:
    """Return all files of a model as they are now. Blocking.

    Raises RbeeError: MODEL_NOT_FOUND if one is missing, MODEL_INVALID if one is not a regular file, PERMISSION_DENIED.
    """
    return tuple(_regular(part) for part in parts_of(path))


def read_header(path: Path) -> GgufHeader:
    """Read the header of the model at *path* and check that every part of it is complete; cached until a file changes.

    Blocking, and bounded in time and memory; what nobody has checked yet is read in a child all the same, see
    `hive/models/headers`.

    Raises:
        RbeeError: MODEL_NOT_FOUND if a part is missing; MODEL_INVALID if one is not GGUF, or truncated, or says of
            the model what cannot be; PERMISSION_DENIED if it cannot be read.
    """
    return _read_parts(present_parts(path))


@lru_cache(maxsize=16)
def _read_parts(parts: tuple[Part, ...]) -> GgufHeader:
    path = parts[0].path
    try:
        return GgufHeader.of(read_parts([part.path for part in parts]))
    except HeaderError as error:
        raise invalid_header(path, error.reason, error.hint) from error
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from error


def _regular(path: Path) -> Part:
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RbeeError(
            ErrorCode.MODEL_NOT_FOUND,
            f"{path} does not exist.",
            details={"path": str(path)},
            hint="Check the path; all parts of a split model have to be in the same folder.",
        ) from error
    except OSError as error:
        raise unreadable(path, error.strerror or str(error)) from error
    if not stat.S_ISREG(info.st_mode):
        raise invalid_header(path, "it is not a regular file", "Name the .gguf file itself.")
    return Part(path, info.st_size, info.st_ino, info.st_ctime_ns)


def invalid_header(path: Path, reason: str, hint: str = OTHER_FILE) -> RbeeError:
    """Return the error for a file that is no model; *hint* says what to do about this *reason*."""
    return invalid_model(path, reason, hint)


def unreadable(path: Path, reason: str) -> RbeeError:
    """Return the error for a file that this process may not read, or that its disk does not give."""
    return RbeeError(
        ErrorCode.PERMISSION_DENIED,
        f"{path} cannot be read: {reason}.",
        details={"path": str(path)},
        hint="Make the file readable for the user that runs the hive.",
    )
