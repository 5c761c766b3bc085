"""Translate between what a user calls a model and the reference that queen and hives understand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from rbee.contracts.errors import ERRORS, ErrorCode
from rbee.errors import RbeeError

_REFERENCE = re.compile(r"(hf:[^/\s]+/[^/\s]+|file:///.+|https://[^/\s]+/\S+|package:[^/\s]+/.+)")
_ONE_SLASH = re.compile(r"\Afile:(?://localhost)?/(?!/)")
_MAX_CHARS = 2048


def resolve(name: str, aliases: Mapping[str, str]) -> str:
    """Return the reference behind an alias, or *name* itself if it has the form of a reference.

    Raises RbeeError INVALID_MODEL_REF, which lists the accepted forms and the known aliases.
    """
    reference = _ONE_SLASH.sub("file:///", aliases.get(name, name))
    if len(reference) <= _MAX_CHARS and _REFERENCE.fullmatch(reference):
        return reference
    known = ", ".join(sorted(aliases))
    shown = reference if len(reference) <= 80 else reference[:80] + "..."
    what = f"{shown!r} is neither a model reference nor an alias"
    if name in aliases:
        what = f"The alias {name!r} stands for {shown!r}, which is not a model reference"
    elif reference.endswith(".gguf") and ("://" not in reference or reference.startswith("file://")):
        path = Path(re.sub(r"\Afile:(//)?", "", reference)).expanduser().absolute()
        forms = ERRORS[ErrorCode.INVALID_MODEL_REF].hint
        hint = f"{forms}\nFor a file on the node: --model file://{path}"
        raise RbeeError(ErrorCode.INVALID_MODEL_REF, f"{what}.", hint=hint)
    raise RbeeError(ErrorCode.INVALID_MODEL_REF, f"{what} (aliases: {known}).", param="model")


def display_name(reference: str, aliases: Mapping[str, str]) -> str:
    """Return the first alias that stands for *reference*, or *reference* itself where none does."""
    return next((alias for alias, target in aliases.items() if target == reference), reference)
