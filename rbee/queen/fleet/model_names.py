"""Find the model that a client means by a name: a reference, an alias, or the name of a file. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import ModelCard
from rbee.errors import RbeeError
from rbee.queen.fleet.registry import Hive

SCHEMES: Final = ("hf:", "file://", "https://", "package:")
MOST_LISTED: Final = 50


def resolve(asked: str, aliases: Mapping[str, str], hives: Iterable[Hive]) -> str:
    """Give the reference. Raises RbeeError MODEL_NOT_FOUND, which lists what there is.

    What is written as a reference is one, known or not: its model is fetched where it is needed.
    """
    known = list(hives)
    if asked in aliases:
        return aliases[asked]
    if asked.startswith(SCHEMES):
        return asked
    if any(asked == reference for hive in known for reference in _listed(hive)):
        return asked
    references = _references(known)
    named = {reference for reference, files in references.items() if asked in files}
    if len(named) == 1:
        return named.pop()
    there = [card.id for card in model_cards(aliases, known, created=0)]
    if named:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{asked} is the name of several models' files: {', '.join(sorted(named))}.",
            hint="Name one of them in full.",
            param="model",
            details={"models": sorted(named)},
        )
    listed = ", ".join(there[:MOST_LISTED]) or "none"
    raise RbeeError(
        ErrorCode.MODEL_NOT_FOUND,
        f"There is no model {asked!r}. There are: {listed}.",
        hint="Name one of them, an alias of [models] in the config file, or a whole reference such as hf:org/repo.",
        param="model",
        details={"models": there},
    )


def model_cards(aliases: Mapping[str, str], hives: Iterable[Hive], *, created: int) -> list[ModelCard]:
    """List the names that are taken: aliases, then what is catalogued or served somewhere."""
    known = list(hives)
    times = {entry.reference: entry.downloaded_at_unix for hive in known for entry in hive.models}
    names = [*sorted(aliases), *sorted(set(_references(known)) - set(aliases))]
    return [ModelCard(id=name, created=times.get(aliases.get(name, name), created)) for name in names]


def _listed(hive: Hive) -> Iterator[str]:
    """Give the references that a hive has catalogued or serves."""
    yield from (entry.reference for entry in hive.models)
    yield from (link.worker.model_ref for link in hive.workers.values())


def _references(hives: Iterable[Hive]) -> dict[str, set[str]]:
    """Give the references that are catalogued or served, each with the names of its file."""
    found: dict[str, set[str]] = {}
    for hive in hives:
        for entry in hive.models:
            found.setdefault(entry.reference, set()).update(_file_names(entry.local_path))
        for link in hive.workers.values():
            reference = link.worker.model_ref
            found.setdefault(reference, set()).update(_file_names(reference.partition("#")[0].rpartition(":")[2]))
    return found


def _file_names(path: str) -> set[str]:
    file = PurePosixPath(path).name
    return {file, file.removesuffix(".gguf")} if file.endswith(".gguf") else set()
