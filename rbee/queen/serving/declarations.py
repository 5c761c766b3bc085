"""Hold the models that are declared to be served, from the queen's files and from commands."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

if TYPE_CHECKING:
    from rbee.contracts.served import Contradiction, Preset, ServedModel, Source


@dataclass(frozen=True, slots=True)
class Declared:
    """A declared model and where its declaration is from; `place` is the file and line of one from a file."""

    model: ServedModel
    source: Source
    place: str | None = None


class Alternative(NamedTuple):
    """A declared model to try where another one cannot be served, by its name or that of a preset of it."""

    name: str
    model: ServedModel

    @property
    def preset(self) -> Preset | None:
        """Return the preset of that name."""
        return self.model.presets.get(self.name)


class Declarations:
    """The declared models by name. `on_change` is called after each change."""

    def __init__(self) -> None:
        self._declared: dict[str, Declared] = {}
        self._owners: dict[str, Declared] = {}
        self.on_change: Callable[[], object] = lambda: None

    def all(self) -> tuple[Declared, ...]:
        """List the declared models by name."""
        return tuple(self._declared.values())

    def find(self, name: str) -> Declared | None:
        """Return the declared model that has *name*, or a preset of that name; None if there is none."""
        return self._owners.get(name)

    def names(self) -> Iterator[str]:
        """Yield every name by which a client may ask: those of models, each with those of its presets."""
        for declared in self._declared.values():
            yield from declared.model.names

    def fallbacks(self, model: ServedModel) -> tuple[Alternative, ...]:
        """List what to try in place of *model*, in order: its own fallbacks, then those of each of these.

        Each model is listed once, by the name that comes first.
        """
        found: list[Alternative] = []
        known = {model.name}
        waiting = deque([model])
        while waiting:
            for name in waiting.popleft().fallback:
                declared = self._owners.get(name)
                if declared is not None and declared.model.name not in known:
                    known.add(declared.model.name)
                    found.append(Alternative(name, declared.model))
                    waiting.append(declared.model)
        return tuple(found)

    def replace_all(self, everything: Sequence[Declared]) -> None:
        """Replace all declarations. Raises RbeeError INVALID_REQUEST, upon which nothing is changed."""
        if everything == list(self._declared.values()):
            return
        if problems := contradictions(everything):
            raise contradictory(problems)
        self._declared = {each.model.name: each for each in sorted(everything, key=lambda each: each.model.name)}
        self._owners = {name: each for each in everything for name in each.model.names}
        self.on_change()


def contradictions(declared: Sequence[Declared]) -> list[Contradiction]:
    """Return what is wrong with declarations taken together."""
    from rbee.contracts import served  # models that a queen without declarations does not need

    return list(served.contradictions(each.model for each in declared))


def contradictory(problems: Sequence[Contradiction]) -> RbeeError:
    """Return the error for declarations that contradict each other."""
    reasons = [problem.reason for problem in problems]
    return RbeeError(
        ErrorCode.INVALID_REQUEST,
        f"The declared models contradict each other: {'; '.join(reasons[:10])}.",
        details={"problems": reasons[:100]},
        hint="Change the other declaration first, or this one; to see all: rbee-keeper models served",
    )


def fitting(files: Sequence[Declared], stored: Iterable[Declared]) -> tuple[list[Declared], list[Contradiction]]:
    """Return those of *stored* that can be served beside those of *files*, and why the others cannot.

    What a file declares comes first: it is what a restart begins with.
    """
    kept = list(stored)
    refused: list[Contradiction] = []
    while kept:
        names = {each.model.name for each in kept}
        blamed = [problem for problem in contradictions([*files, *kept]) if names.intersection(problem.names)]
        if not blamed:
            break
        refused += blamed
        dropped = {name for problem in blamed for name in problem.names}
        kept = [each for each in kept if each.model.name not in dropped]
    return kept, refused
