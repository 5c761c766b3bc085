"""Select the files of a repository that a reference means; a pure function of their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.gguf.split import first_part, is_part, part_names
from rbee.hive.models.reference import HubRef

DEFAULT_QUANT: Final = "Q4_K_M"
# What is taken where a reference names no quantisation: four bits, else more, else fewer, whole numbers of 16 and 32
# bits last. A name that is not listed comes before those.
PREFERRED: Final = (
    *(DEFAULT_QUANT, "Q4_K_XL", "Q4_K_L", "Q4_K_S", "Q4_K", "IQ4_NL", "IQ4_XS", "MXFP4", "MXFP4_MOE", "Q4_1", "Q4_0"),
    *("Q5_K_M", "Q5_K_XL", "Q5_K_L", "Q5_K_S", "Q5_K", "Q5_1", "Q5_0"),
    *("Q6_K", "Q6_K_L", "Q6_K_XL", "Q8_0", "Q8_K_XL"),
    *("Q3_K_L", "Q3_K_XL", "Q3_K_M", "IQ3_M", "Q3_K_S", "IQ3_S", "Q3_K", "IQ3_XS", "IQ3_XXS"),
    *("Q2_K_L", "Q2_K_XL", "Q2_K", "IQ2_M", "Q2_K_S", "IQ2_S", "IQ2_XS", "IQ2_XXS"),
    *("TQ2_0", "TQ1_0", "IQ1_M", "IQ1_S"),
)
_LAST: Final = ("F16", "BF16", "F32")
_QUANT_IN_NAME: Final = re.compile(r"(?<![A-Za-z0-9])((?:I?Q\d|TQ\d|BF16|F16|F32|MXFP4)[A-Za-z0-9_]*)", re.IGNORECASE)
# Projectors of images and sound, importance matrices, adapters, vocabularies; heads that guess ahead begin with "mtp".
_NO_MODEL: Final = re.compile(
    r"(?<![a-z0-9])(?:mmproj|imatrix|lora|vocab)(?![a-z0-9])|(?:\A|/)mtp(?![a-z0-9])[^/]*\Z", re.IGNORECASE
)


def choose_files(ref: HubRef, names: Sequence[str]) -> list[str]:
    """Return the files that *ref* means, all parts of a split model, the first part first.

    Raises RbeeError MODEL_NOT_FOUND that names what the repository has.
    """
    files = sorted(name for name in names if name.lower().endswith(".gguf"))
    models = [name for name in files if not _NO_MODEL.search(name)]
    if ref.file is not None:
        if first_part(ref.file) not in names:
            raise _not_found(ref, f"{ref.repo} has no file {first_part(ref.file)}", models or files)
        return _whole(ref, ref.file, names)
    if not files:
        raise _not_found(ref, f"{ref.repo} has no GGUF file", [])
    if not models:
        raise _not_found(ref, f"{ref.repo} has no model, only files for one", files)
    if ref.quant is not None:
        matching = _of_quant(models, ref.quant)
        if not matching:
            raise _not_found(ref, f"{ref.repo} has no quantisation {ref.quant}", _quants(models) or models)
        return _whole(ref, matching[0], names)
    return _whole(ref, min(models, key=_preference), names)


def explain_choice(ref: HubRef, files: Sequence[str]) -> str:
    """Return in words what `choose_files` took."""
    parts = f", {len(files)} parts" if len(files) > 1 else ""
    is_default = ref.file is not None or ref.quant is not None or bool(_of_quant(files[:1], DEFAULT_QUANT))
    because = "" if is_default else f", because {ref.repo} has no {DEFAULT_QUANT}"
    return f"taking {files[0]}{parts}{because}"


def _preference(name: str) -> tuple[int, int, bool, str]:
    """Return a key by which the model sorts first that is taken where nothing more is said."""
    quant = _quant(name)
    if quant in _LAST:
        rank = len(PREFERRED) + 1 + _LAST.index(quant)
    else:
        rank = PREFERRED.index(quant) if quant in PREFERRED else len(PREFERRED)
    return rank, *_place(name)


def _place(name: str) -> tuple[int, bool, str]:
    """Return a key: a file in the root is meant before one in a folder, a whole one before a split one."""
    return name.count("/"), is_part(name), name


def _of_quant(models: Sequence[str], quant: str) -> list[str]:
    pattern = re.compile(rf"(?<![A-Za-z0-9]){re.escape(quant)}(?![A-Za-z0-9_])", re.IGNORECASE)
    return sorted((name for name in models if pattern.search(name)), key=_place)


def _whole(ref: HubRef, name: str, names: Sequence[str]) -> list[str]:
    parts = part_names(name)
    missing = [part for part in parts if part not in names]
    if missing:
        raise _not_found(ref, f"{ref.repo} lacks a part of this model: {missing[0]}", [])
    return parts


def _quant(name: str) -> str | None:
    """Return the quantisation that a name tells: that of the file before that of its folder."""
    found = _QUANT_IN_NAME.findall(name)
    return found[-1].upper() if found else None


def _quants(models: Sequence[str]) -> list[str]:
    return sorted({quant for name in models if (quant := _quant(name)) is not None})


def _not_found(ref: HubRef, reason: str, available: Sequence[str]) -> RbeeError:
    shown = f"; it has: {', '.join(available[:20])}" if available else ""
    return RbeeError(
        ErrorCode.MODEL_NOT_FOUND,
        f"{reason}{shown}.",
        details={"model": ref.canonical, "available": list(available[:100])},
        hint="Name one of its quantisations or files: hf:org/repo:Q4_K_M or hf:org/repo:file.gguf",
        param="model",
    )
