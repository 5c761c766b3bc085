"""Select the files of a repository that a reference means; a pure function of their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.gguf.split import first_part, is_part, part_names
from rbee.model_reference import HubRef

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
# What is no model, though it is a GGUF file, by a word of its name; heads that guess ahead begin with "mtp".
_NO_MODEL: Final = re.compile(
    r"(?<![a-z0-9])(?P<word>mmproj|imatrix|lora|vocab)(?![a-z0-9])|(?:\A|/)(?P<head>mtp)(?![a-z0-9])[^/]*\Z",
    re.IGNORECASE,
)
_KINDS: Final = {
    "mmproj": "a projector of images or sound",
    "imatrix": "an importance matrix",
    "lora": "an adapter",
    "vocab": "a vocabulary",
    "mtp": "a draft head",
}
_MOST_SHOWN: Final = 20
_NO_MODEL_HINT: Final = "Name a repository that has the model as GGUF; on the hub they often end in -GGUF."
_INCOMPLETE_HINT: Final = "The repository is not complete: name another model of it, or another repository."


def choose_files(ref: HubRef, names: Sequence[str]) -> list[str]:
    """Return the files that *ref* means, all parts of a split model, the first part first.

    A file that is named without its folder is looked for in all of them. Raises RbeeError MODEL_NOT_FOUND that names
    what the repository has.
    """
    files = sorted(name for name in names if name.lower().endswith(".gguf"))
    models = [name for name in files if _kind(name) is None]
    if ref.file is not None:
        return _whole(ref, _named(ref, ref.file, names, models or files), names)
    if not files:
        raise _not_found(ref, f"{ref.repo} has no GGUF file", sorted(names), hint=_NO_MODEL_HINT)
    if not models:
        raise _not_found(ref, f"{ref.repo} has GGUF files, but none of them is a model", files, hint=_NO_MODEL_HINT)
    if ref.quant is None:
        return _whole(ref, min(models, key=_preference), names)
    inside = [name for name in models if ref.within is None or name.startswith(f"{ref.within}/")]
    matching = _of_quant(inside, ref.quant)
    if not matching:
        where = f"{ref.repo} has in {ref.within}" if ref.within else f"{ref.repo} has"
        raise _not_found(ref, f"{where} no quantisation {ref.quant}", _quants(inside) or _models(models))
    return _whole(ref, matching[0], names)


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
    """Return the models of a quantisation by the names of their files, else by the folders of those that tell none."""
    pattern = re.compile(rf"(?<![A-Za-z0-9]){re.escape(quant)}(?![A-Za-z0-9_])", re.IGNORECASE)
    by_file = [name for name in models if pattern.search(PurePosixPath(name).name)]
    is_quant = _QUANT_IN_NAME.fullmatch(quant) is not None
    by_folder = [
        name for name in models if pattern.search(name) and not (is_quant and _quant(PurePosixPath(name).name))
    ]
    return sorted(by_file or by_folder, key=_place)


def _named(ref: HubRef, file: str, names: Sequence[str], available: Sequence[str]) -> str:
    """Return the file of a name: one of that path, else the only one of that name in any folder."""
    found = [file] if file in names else [name for name in names if PurePosixPath(name).name == file]
    if len(found) == 1:
        return found[0]
    if found:
        raise _not_found(ref, f"{ref.repo} has {file} in {len(found)} folders", sorted(found))
    if parts := [part for part in part_names(file) if part in names]:
        raise _not_found(ref, f"{ref.repo} lacks a part of this model: {file}", parts, hint=_INCOMPLETE_HINT)
    raise _not_found(ref, f"{ref.repo} has no file {file}", _models(available))


def _whole(ref: HubRef, name: str, names: Sequence[str]) -> list[str]:
    parts = part_names(name)
    present = [part for part in parts if part in names]
    if len(present) < len(parts):
        missing = next(part for part in parts if part not in present)
        raise _not_found(ref, f"{ref.repo} lacks a part of this model: {missing}", present, hint=_INCOMPLETE_HINT)
    return parts


def _kind(name: str) -> str | None:
    """Return what a GGUF file is by its name, in words; None for a model."""
    found = _NO_MODEL.search(name)
    return None if found is None else _KINDS[(found["word"] or found["head"]).lower()]


def _quant(name: str) -> str | None:
    """Return the quantisation that a name tells: that of the file before that of its folder."""
    found = _QUANT_IN_NAME.findall(name)
    return found[-1].upper() if found else None


def _quants(models: Sequence[str]) -> list[str]:
    return sorted({quant for name in models if (quant := _quant(name)) is not None})


def _models(files: Sequence[str]) -> list[str]:
    """Return each model once, by its first part."""
    return sorted({first_part(name) for name in files})


def _not_found(ref: HubRef, reason: str, available: Sequence[str], *, hint: str | None = None) -> RbeeError:
    more = f" and {len(available) - _MOST_SHOWN} more" if len(available) > _MOST_SHOWN else ""
    shown = [name if (kind := _kind(name)) is None else f"{name} ({kind})" for name in available[:_MOST_SHOWN]]
    example = available[0] if available else DEFAULT_QUANT
    return RbeeError(
        ErrorCode.MODEL_NOT_FOUND,
        f"{reason}{'; it has: ' if shown else ''}{', '.join(shown)}{more}.",
        details={"model": ref.canonical, "available": list(available[:100])},
        hint=hint or f"Name one of its quantisations or files, such as {ref.place}:{example}",
        param="model",
    )
