"""Translate between what a user calls a model and the reference that queen and hives understand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from rbee.errors import RbeeError
from rbee.model_reference import UrlRef, parse_reference

_NAME_OF_FILE = re.compile(r"(?:file:(?!/)|file://(?=[^/]+\Z))?(?P<path>(?!\w+:).+\.gguf)")


def resolve(name: str, aliases: Mapping[str, str]) -> str:
    """Return the reference, in its canonical form, behind an alias or of *name* itself.

    Raises RbeeError INVALID_MODEL_REF that says what is wrong, with the accepted forms.
    """
    text = aliases.get(name, name)
    try:
        ref = parse_reference(text)
    except RbeeError as error:
        raise _refusal(error, name, aliases) from error
    # The canonical form of an address lacks its query, which is needed to fetch it.
    return text if isinstance(ref, UrlRef) else ref.canonical


def display_name(reference: str, aliases: Mapping[str, str]) -> str:
    """Return the first alias that stands for *reference*, or *reference* itself where none does."""
    return next((alias for alias, target in aliases.items() if target == reference), reference)


def _refusal(error: RbeeError, name: str, aliases: Mapping[str, str]) -> RbeeError:
    """Return the refusal of a model's name, with what the keeper knows besides: aliases, and the folder it runs in."""
    message, hint = error.message, error.hint
    if name in aliases:
        message = f"The alias {name!r}: {message}"
    elif ":" not in name:
        message = f"{message[:-1]}, and is no alias (aliases: {', '.join(sorted(aliases))})."
    if found := _NAME_OF_FILE.fullmatch(aliases.get(name, name)):
        hint = f"{hint}\nFor a file on the node: --model file://{Path(found['path']).expanduser().absolute()}"
    return RbeeError(error.code, message, details=error.details, hint=hint, param=error.param)
