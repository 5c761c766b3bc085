"""Select the files of a repository that a reference means; a pure function of their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.hive.models.reference import HubRef

DEFAULT_QUANT: Final = "Q4_K_M"
_SPLIT: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf\Z", re.IGNORECASE)
_QUANT_IN_NAME: Final = re.compile(r"(?<![A-Za-z0-9])((?:I?Q\d|TQ\d|BF16|F16|F32|MXFP4)[A-Za-z0-9_]*)", re.IGNORECASE)


def choose_files(ref: HubRef, names: Sequence[str]) -> list[str]:
    """Return the files that *ref* means, all parts of a split model, the first part first.

    Raises RbeeError MODEL_NOT_FOUND that names what the repository has.
    """
    models = sorted(
        name
        for name in names
        if name.lower().endswith(".gguf") and not PurePosixPath(name).name.lower().startswith("mmproj")
    )
    if not models:
        raise _not_found(ref, f"{ref.repo} has no GGUF file", [])
    if ref.file is not None:
        if ref.file not in names:
            raise _not_found(ref, f"{ref.repo} has no file {ref.file}", models)
        return _whole(ref, ref.file, names)
    if ref.quant is not None:
        matching = _of_quant(models, ref.quant)
        if not matching:
            raise _not_found(ref, f"{ref.repo} has no quantisation {ref.quant}", _quants(models) or models)
        return _whole(ref, matching[0], names)
    return _whole(ref, (_of_quant(models, DEFAULT_QUANT) or models)[0], names)


def _of_quant(models: Sequence[str], quant: str) -> list[str]:
    pattern = re.compile(rf"(?<![A-Za-z0-9]){re.escape(quant)}(?![A-Za-z0-9_])", re.IGNORECASE)
    found = [name for name in models if pattern.search(name)]
    # A file in the root is meant before one in a folder, a whole one before a split one.
    return sorted(found, key=lambda name: (name.count("/"), _SPLIT.match(name) is not None, name))


def _whole(ref: HubRef, name: str, names: Sequence[str]) -> list[str]:
    match = _SPLIT.match(name)
    if match is None:
        return [name]
    parts = [f"{match['stem']}-{number:05d}-of-{match['count']}.gguf" for number in range(1, int(match["count"]) + 1)]
    missing = [part for part in parts if part not in names]
    if missing:
        raise _not_found(ref, f"{ref.repo} lacks a part of this model: {missing[0]}", [])
    return parts


def _quants(models: Sequence[str]) -> list[str]:
    return sorted({match[1].upper() for name in models if (match := _QUANT_IN_NAME.search(name))})


def _not_found(ref: HubRef, reason: str, available: Sequence[str]) -> RbeeError:
    shown = f"; it has: {', '.join(available[:20])}" if available else ""
    return RbeeError(
        ErrorCode.MODEL_NOT_FOUND,
        f"{reason}{shown}.",
        details={"model": ref.canonical, "available": list(available[:100])},
        hint="Name one of its quantisations or files: hf:org/repo:Q4_K_M or hf:org/repo:file.gguf",
        param="model",
    )
