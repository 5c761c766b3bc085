"""Translate between what a user calls a model and the reference that queen and hives understand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rbee.contracts.errors import ErrorCode
from rbee.contracts.patterns import NAME
from rbee.errors import RbeeError
from rbee.model_reference import UrlRef, parse_reference

if TYPE_CHECKING:
    from rbee.keeper.session import Session

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


def resolve_for(session: Session, name: str) -> str:
    """Return what a queen is asked for *name*: itself where a declared model or a preset has it, else its reference.

    A queen that runs is asked for names that are no alias and none of the config file. Raises as `resolve` does.
    """
    settings = session.settings
    if name in settings.served or (name not in settings.aliases and _is_declared(session, name)):
        return name
    return resolve(name, settings.aliases)


def _is_declared(session: Session, name: str) -> bool:
    """Return whether the queen, if one runs, knows a name that is no reference as that of a declared model."""
    if not re.match(NAME, name):
        return False
    from rbee.client.queen import QueenClient
    from rbee.client.retry import Retries

    queen = QueenClient(session.settings.queen_url, session.settings.api_key(), retries=Retries(()))
    try:
        declared = [row["declared"] for row in queen.served()["served"]]
    except RbeeError as error:
        # A key that may only infer: the queen, which knows what it may name, will say.
        return error.code is ErrorCode.FORBIDDEN
    return any(name == each["name"] or name in each["presets"] for each in declared)


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
