"""A problem of an inventory, as the checks tell it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rbee.errors import ConfigError

_MOST_NAMES: Final = 5


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of a file, and its line (from 1) where one line has it.

    *about* is what is wrong, such as a variable and its value: a second problem about the same tells nothing new.
    *unreadable* is whether the whole file is: then Ansible may refuse it as well.
    """

    file: str
    line: int | None
    message: str
    about: Hashable = None
    unreadable: bool = False

    def __str__(self) -> str:
        return f"{self.file}: {self.message}" if self.line is None else f"{self.file}:{self.line}: {self.message}"

    def error(self) -> ConfigError:
        """Return it as an exception."""
        return ConfigError(self.message, path=self.file, line=self.line)


def without_repeats(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Yield the problems, the first of those that are about the same."""
    told: set[Hashable] = set()
    for problem in problems:
        if problem.about is None or problem.about not in told:
            told.add(problem.about)
            yield problem


def about(variable: str, value: object) -> Hashable:
    """Return what a problem of a variable's value is about."""
    return variable, repr(value)


def listed(names: Sequence[str]) -> str:
    """Format names of machines, the first five of many."""
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
