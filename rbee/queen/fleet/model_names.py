"""Find the model that a client means by a name: a reference, an alias, or the name of a file. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.queen.registry import Hive

SCHEMES: Final = ("hf:", "file:/", "https://", "package:")
MOST_LISTED: Final = 50
MAX_NAME_CHARS: Final = 200
NAME_ONE: Final = "Use one of them; GET /v1/models lists them."


def resolve(name: str, aliases: Mapping[str, str], hives: Iterable[Hive]) -> str:
    """Return the reference. Raises RbeeError MODEL_NOT_FOUND, which lists what there is.

    What is written as a reference is one, known or not: its model is downloaded where it is needed.
    """
    known = list(hives)
    if name in aliases:
        return aliases[name]
    if name.startswith(SCHEMES):
        return name
    if any(name == reference for hive in known for reference in _listed(hive)):
        return name
    references = _references(known)
    matching = {reference for reference, files in references.items() if name in files}
    if len(matching) == 1:
        return matching.pop()
    available = list(taken_names(aliases, known))
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


def is_listed(reference: str, aliases: Mapping[str, str], hives: Iterable[Hive]) -> bool:
    """Return whether a reference is that of an alias, or in a catalog or served somewhere."""
    return reference in aliases.values() or any(reference in _listed(hive) for hive in hives)


def resolve_declared(name: str, aliases: Mapping[str, str], hives: Iterable[Hive]) -> str | None:
    """Return the reference that a client means by *name*, None for a name of nothing that is there.

    It is an alias or what that stands for, or a model that is in a catalog or served, by its reference or by the name
    of its file. No other reference is one here, whatever it looks like: a client makes no machine fetch what its
    operator has not declared.
    """
    return _resolve(name, aliases, _references(hives))


def declared_names(
    aliases: Mapping[str, str], hives: Iterable[Hive], allowed: Collection[str] | None
) -> dict[str, str]:
    """List the names by which a client may ask, each with its reference.

    What has a path or a query in its reference is listed by the name of its file.

    Args:
        allowed: the names that the client's key is limited to, None for no limit.
    """
    references = _references(hives)
    if allowed is not None:
        names = sorted(allowed)
    else:
        listed = {_public_name(reference, files) for reference, files in references.items()}
        names = [*sorted(aliases), *sorted(listed - set(aliases))]
    found = {name: _resolve(name, aliases, references) for name in names}
    return {name: reference for name, reference in found.items() if reference is not None}


def taken_names(aliases: Mapping[str, str], hives: Iterable[Hive]) -> dict[str, str]:
    """List the names that are taken, with their references: aliases, then what is in a catalog or served somewhere."""
    others = sorted(set(_references(hives)) - set(aliases))
    return {**{name: aliases[name] for name in sorted(aliases)}, **{name: name for name in others}}


def _resolve(name: str, aliases: Mapping[str, str], references: Mapping[str, Collection[str]]) -> str | None:
    if name in aliases:
        return aliases[name]
    if name in aliases.values() or name in references:
        return name
    matching = [reference for reference, files in references.items() if name in files]
    return matching[0] if len(matching) == 1 else None


def _listed(hive: Hive) -> Iterator[str]:
    """Yield the references that a hive has in its catalog or serves."""
    yield from (entry.reference for entry in hive.models)
    yield from (link.worker.model_ref for link in hive.workers.values())


def _references(hives: Iterable[Hive]) -> dict[str, set[str]]:
    """Return the references that are in a catalog or served, each with the names of its file."""
    found: dict[str, set[str]] = {}
    for hive in hives:
        for entry in hive.models:
            found.setdefault(entry.reference, set()).update(_file_names(entry.local_path))
        for link in hive.workers.values():
            reference = link.worker.model_ref
            found.setdefault(reference, set()).update(_file_names(reference.partition("#")[0].rpartition(":")[2]))
    return found


def _public_name(reference: str, files: Collection[str]) -> str:
    """Return the name of a model that tells nothing of the machine, or of the account, that it comes from."""
    if reference.startswith("file:") or "?" in reference:
        return min(files, key=len, default=reference)
    return reference


def _file_names(path: str) -> set[str]:
    file = PurePosixPath(path).name
    return {file, file.removesuffix(".gguf")} if file.endswith(".gguf") else set()
