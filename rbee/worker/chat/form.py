"""What an answer may be, as a tree that can be cut at a beginning. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol


class FormError(Exception):
    """Raised for a parser that cannot be made into a tree, or a tree that cannot be written; says why."""


class Form(Protocol):
    """A part of a tree; equal ones are interchangeable."""

    @property
    def may_be_empty(self) -> bool:
        """Whether no text at all is of this form."""

    @property
    def ends_open(self) -> bool:
        """Whether a text of this form may end with text whose end only what follows tells."""

    def after(self, tail: Sequence[Form], text: str) -> list[Form] | None:
        """Return what may follow *text*, which is not empty, in a sequence of this and *tail*; None for nothing.

        As in the parser, what may be there is there if it fits.
        """


@dataclass(frozen=True, slots=True)
class Literal:
    """This text."""

    text: str
    ends_open = False

    @property
    def may_be_empty(self) -> bool:
        """Whether it is."""
        return not self.text

    def after(self, tail: Sequence[Form], text: str) -> list[Form] | None:
        """Return the rest of it, or what follows it."""
        if text.startswith(self.text):
            return after(tail, text[len(self.text) :])
        return [Literal(self.text[len(text) :]), *tail] if self.text.startswith(text) else None


@dataclass(frozen=True, slots=True)
class Until:
    """Any text that holds none of the delimiters; with `included` it ends with the first of them."""

    delimiters: tuple[str, ...]
    included: bool = False

    @property
    def may_be_empty(self) -> bool:
        """Whether it needs no delimiter."""
        return not self.included

    @property
    def ends_open(self) -> bool:
        """Whether it needs no delimiter."""
        return not self.included

    def after(self, tail: Sequence[Form], text: str) -> list[Form] | None:
        """Return what follows the first delimiter; all of it where there is none."""
        ends = [(at, end) for at, end in ((text.find(end), end) for end in self.delimiters) if at >= 0]
        if not ends:
            return [self, *tail]
        at, end = min(ends)
        return after(tail, text[at + len(end) * self.included :])


@dataclass(frozen=True, slots=True)
class Characters:
    """From `least` to `most` characters (None for any number) of a class of a regular expression."""

    pattern: str
    least: int
    most: int | None
    ends_open = False

    @property
    def may_be_empty(self) -> bool:
        """Whether none are enough."""
        return not self.least

    def after(self, tail: Sequence[Form], text: str) -> list[Form] | None:
        """Return what may follow the first character."""
        if self.most != 0 and re.fullmatch(self.pattern, text[0]):
            most = None if self.most is None else self.most - 1
            rest = after([Characters(self.pattern, max(self.least - 1, 0), most), *tail], text[1:])
            if rest is not None:
                return rest
        return None if self.least else after(tail, text)


class _Uncut:
    """A part that is not cut: no text is known to begin it."""

    __slots__ = ()
    may_be_empty = False
    ends_open = False

    def after(self, tail: Sequence[Form], text: str) -> list[Form] | None:
        """Return None."""
        del tail, text
        return None


@dataclass(frozen=True, slots=True)
class Json(_Uncut):
    """JSON of the schema with this name; `fallback` is a schema for where there is none of the name."""

    name: str
    fallback: str = "{}"


@dataclass(frozen=True, slots=True)
class Content(_Uncut):
    """What the answer says beside thoughts and calls, where the request demands a form of it."""


@dataclass(frozen=True, slots=True)
class Recursion(_Uncut):
    """What has this name in the definitions, of which it is a part itself."""

    name: str


@dataclass(frozen=True, slots=True)
class Sequenced:
    """One part after the other."""

    parts: tuple[Form, ...]

    @property
    def may_be_empty(self) -> bool:
        """Whether all parts may."""
        return all(part.may_be_empty for part in self.parts)

    @property
    def ends_open(self) -> bool:
        """Whether the last part does, or one after which nothing need follow."""
        for part in reversed(self.parts):
            if part.ends_open:
                return True
            if not part.may_be_empty:
                return False
        return False

    def after(self, tail: Sequence[Form], text: str) -> list[Form] | None:
        """Return what follows in the parts and then in *tail*."""
        return after([*self.parts, *tail], text)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of the parts, the first that fits."""

    parts: tuple[Form, ...]

    @property
    def may_be_empty(self) -> bool:
        """Whether one of them may."""
        return any(part.may_be_empty for part in self.parts)

    @property
    def ends_open(self) -> bool:
        """Whether one of them does."""
        return any(part.ends_open for part in self.parts)

    def after(self, tail: Sequence[Form], text: str) -> list[Form] | None:
        """Return what may follow in any of the parts."""
        found = [rest for part in self.parts if (rest := after([part, *tail], text)) is not None]
        return None if not found else found[0] if len(found) == 1 else [one_of(map(sequenced, found))]


@dataclass(frozen=True, slots=True)
class Repeated:
    """From `least` to `most` times (None for any number) the same."""

    part: Form
    least: int
    most: int | None

    @property
    def may_be_empty(self) -> bool:
        """Whether it need not be there."""
        return not self.least or self.part.may_be_empty

    @property
    def ends_open(self) -> bool:
        """Whether the part does."""
        return self.part.ends_open

    def after(self, tail: Sequence[Form], text: str) -> list[Form] | None:
        """Return what follows within the first of them; what follows all of them, where none fits."""
        more = repeated(self.part, max(self.least - 1, 0), None if self.most is None else self.most - 1)
        rest = after([self.part, more, *tail], text)
        return after(tail, text) if rest is None and not self.least else rest


NOTHING: Final = Sequenced(())
SPACE: Final = Characters(r"[ \t\n]", 0, 24)


@dataclass(frozen=True, slots=True)
class Tree:
    """A form, with what the names of each `Recursion` in it stand for."""

    form: Form
    definitions: Mapping[str, Form]

    def after(self, beginning: str) -> Tree | None:
        """Return what may follow *beginning*; None where no text of the form begins so."""
        rest = after([self.form], beginning)
        return None if rest is None else Tree(sequenced(rest), self.definitions)


def after(parts: Sequence[Form], text: str) -> list[Form] | None:
    """Return what may follow *text* in a sequence, as `Form.after` does."""
    if not text:
        return list(parts)
    return parts[0].after(parts[1:], text) if parts else None


def sequenced(parts: Iterable[Form]) -> Form:
    """Return a sequence, in which what is a sequence itself is dissolved, and optional white space is one part.

    So where answers of several forms may have white space, it is the same to the lexer.
    """
    flat: list[Form] = []
    for part in parts:
        for inner in part.parts if isinstance(part, Sequenced) else (part,):
            if not _is_blank(inner):
                flat.append(inner)
            elif not flat or flat[-1] != SPACE:
                flat.append(SPACE)
    return flat[0] if len(flat) == 1 else Sequenced(tuple(flat))


def _is_blank(form: Form) -> bool:
    """Return whether a form is white space that may be there."""
    if isinstance(form, Repeated):
        return (form.least, form.most) == (0, 1) and isinstance(form.part, Literal) and not form.part.text.strip()
    return isinstance(form, Characters) and form.pattern == SPACE.pattern and not form.least


def one_of(parts: Iterable[Form]) -> Form:
    """Return a choice; nothing where there is nothing to choose from."""
    different = tuple(dict.fromkeys(parts))
    return NOTHING if not different else different[0] if len(different) == 1 else OneOf(different)


def repeated(part: Form, least: int, most: int | None) -> Form:
    """Return a repetition, unless it is none."""
    if part == NOTHING or most == 0:
        return NOTHING
    return part if (least, most) == (1, 1) else Repeated(part, least, most)
