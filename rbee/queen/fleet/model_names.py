"""Find the model that a client means by a name, if it is no declared one: a reference, an alias, a file. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.queen.known_models import KnownModels

SCHEMES: Final = ("hf:", "file:/", "https://", "package:")
MOST_LISTED: Final = 50
MAX_NAME_CHARS: Final = 200
NAME_ONE: Final = "Use one of them; GET /v1/models lists them."


def resolve(name: str, aliases: Mapping[str, str], known: KnownModels, *, served: Iterable[str] = ()) -> str:
    """Return the reference. Raises RbeeError MODEL_NOT_FOUND, which lists what there is, the *served* names first.

    What is written as a reference is one, known or not: its model is downloaded where it is needed.
    """
    if name in aliases:
        return aliases[name]
    if name.startswith(SCHEMES) or name in known.references:
        return name
    matching = known.with_file(name)
    if len(matching) == 1:
        return next(iter(matching))
    available = list(dict.fromkeys([*served, *taken_names(aliases, known)]))
    if matching:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{name} is the file name of several models: {', '.join(sorted(matching))}.",
            hint="Use the full reference of one of them.",
            param="model",
            details={"models": sorted(matching)},
        )
    hint = "Use one of them, an alias of [models] in the config file, or a full reference such as hf:org/repo."
    raise no_such_model(name, available, hint=hint)


def no_such_model(name: str, available: Sequence[str], *, hint: str = NAME_ONE) -> RbeeError:
    """Build the error for a name that is none of those *available*."""
    return RbeeError(
        ErrorCode.MODEL_NOT_FOUND,
        f"There is no model {name[:MAX_NAME_CHARS]!r}. Available: {', '.join(available[:MOST_LISTED]) or 'none'}.",
        hint=hint,
        param="model",
        details={"models": list(available)},
    )


def is_listed(reference: str, aliases: Mapping[str, str], known: KnownModels) -> bool:
    """Return whether a reference is that of an alias, or in a catalog or served somewhere."""
    return reference in aliases.values() or reference in known.references


def resolve_declared(name: str, aliases: Mapping[str, str], known: KnownModels) -> str | None:
    """Return the reference that a client means by *name*, None for a name of nothing that is there.

    It is an alias or what that stands for, or a model that is in a catalog or served, by its reference or by the name
    of its file. No other reference is one here, whatever it looks like: a client makes no machine fetch what its
    operator has not declared.
    """
    if name in aliases:
        return aliases[name]
    if name in aliases.values() or name in known.references:
        return name
    matching = known.with_file(name)
    return next(iter(matching)) if len(matching) == 1 else None


def declared_names(aliases: Mapping[str, str], known: KnownModels, allowed: Collection[str] | None) -> dict[str, str]:
    """List the names by which a client may ask, each with its reference.

    What has a path or a query in its reference is listed by the name of its file.

    Args:
        allowed: the names that the client's key is limited to, None for no limit.
    """
    if allowed is not None:
        names = sorted(allowed)
    else:
        listed = {_public_name(reference, known.files(reference)) for reference in known.references}
        names = [*sorted(aliases), *sorted(listed - set(aliases))]
    found = {name: resolve_declared(name, aliases, known) for name in names}
    return {name: reference for name, reference in found.items() if reference is not None}


def taken_names(aliases: Mapping[str, str], known: KnownModels) -> dict[str, str]:
    """List the names that are taken, with their references: aliases, then what is in a catalog or served somewhere."""
    others = sorted(known.references - set(aliases))
    return {**{name: aliases[name] for name in sorted(aliases)}, **{name: name for name in others}}


def _public_name(reference: str, files: Collection[str]) -> str:
    """Return the name of a model that tells nothing of the machine, or of the account, that it comes from."""
    if reference.startswith("file:") or "?" in reference:
        return min(files, key=len, default=reference)
    return reference
