"""Write the form of an answer as a grammar for llguidance. Pure.

Text that goes on until a mark is one lexeme with the mark at its end, for the lexer does not go back; what follows is
then cut at the mark. A mark that the vocabulary has as a token of its own may be written as that token or letter by
letter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rbee.worker.chat.form import (
    NOTHING,
    Characters,
    Content,
    Form,
    FormError,
    Json,
    Literal,
    OneOf,
    Recursion,
    Repeated,
    Sequenced,
    Tree,
    Until,
    after,
    one_of,
    sequenced,
)

ANSWER: Final = "answer"
"""The rule that `Content` refers to, which the caller adds."""
MAX_CHARS: Final = 400_000
_HEADER: Final = "%llguidance {}"
_TEXT: Final = r"TEXT: /(.|\n)*/"


@dataclass(frozen=True, slots=True)
class Marks:
    """Texts that are kept apart from what is around them, and the tokens that the vocabulary has for some of them."""

    texts: tuple[str, ...]
    tokens: Mapping[str, int]


def lark_of(trees: Sequence[Tree], *, rules: Mapping[str, str], marks: Marks) -> tuple[str, set[str]]:
    """Return the grammar of an answer in one of several forms, and which of *rules* it needs beside `ANSWER`.

    Args:
        rules: the name of the rule for each name of a `Json`; for others any JSON will do.

    Raises FormError where it would be too large, or cannot be written.
    """
    writer = _Writer(rules, marks)
    return writer.write(trees), writer.used


class _Writer:
    def __init__(self, rules: Mapping[str, str], marks: Marks) -> None:
        self.used: set[str] = set()
        self._rules = rules
        self._tokens = marks.tokens
        longest_first = sorted(filter(None, marks.texts), key=len, reverse=True)
        self._marks = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None
        self._definitions: Mapping[str, Form] = {}
        self._names: dict[Form, str] = {}
        self._lines: list[str] = []
        self._count = 0
        self._size = 0
        self._kinds: Mapping[type[Any], Callable[[Any], str]] = {
            Literal: lambda form: self._literal(form.text),
            Until: lambda form: self._text_before(form) if form.included else "TEXT",
            Characters: _characters,
            Json: self._json,
            Content: lambda _: ANSWER,
            Recursion: self._recursion,
            Repeated: lambda form: f"({self._expression(form.part)}){_count(form.least, form.most)}",
            OneOf: lambda form: self._rule(form, " | ".join(map(self._expression, form.parts))),
            Sequenced: lambda form: self._rule(form, self._sequence(form.parts)),
        }

    def write(self, trees: Sequence[Tree]) -> str:
        starts = []
        for tree in trees:
            self._definitions = tree.definitions
            self._names = {}
            starts.append(self._expression(tree.form))
        return "\n".join([_HEADER, f"start: {' | '.join(starts)}", _TEXT, *self._lines])

    def _expression(self, form: Form) -> str:
        if form in self._names:
            return self._names[form]
        if form == NOTHING:
            return '""'
        return self._kinds[type(form)](form)

    def _recursion(self, form: Recursion) -> str:
        name = self._names[form] = self._new_name()
        self._add(f"{name}: {self._expression(self._definitions[form.name])}")
        return name

    def _sequence(self, parts: Sequence[Form]) -> str:
        written: list[str] = []
        for number, part in enumerate(parts):
            rest = parts[number + 1 :]
            if not rest or not part.ends_open:
                written.append(self._expression(part))
                continue
            written.append(self._expression(one_of(_closed(part, rest))))
            break
        return " ".join(written)

    def _rule(self, form: Form, expression: str) -> str:
        name = self._names.get(form)
        if name is None:
            name = self._names[form] = self._new_name()
            self._add(f"{name}: {expression}")
        return name

    def _new_name(self) -> str:
        self._count += 1
        return f"part_{self._count}"

    def _json(self, form: Json) -> str:
        rule = self._rules.get(form.name)
        if rule is None:
            return self._rule(form, f"%json {form.fallback}")
        self.used.add(rule)
        return rule

    def _text_before(self, until: Until) -> str:
        """Return the expression of any text up to the first of some marks, with it."""
        if until not in self._names:
            name = self._names[until] = self._new_name()
            ways = []
            for number, mark in enumerate(until.delimiters):
                self._add(f"{name}_{number}[lazy]: TEXT {_quoted(mark)}")
                ways.append(f"{name}_{number}")
                first = self._marks.match(mark) if self._marks is not None else None
                if first is not None and first[0] in self._tokens:
                    ways.append(f"TEXT {self._literal(mark, tokens_only=True)}")
            self._add(f"{name}: {' | '.join(ways)}")
        return self._names[until]

    def _literal(self, text: str, *, tokens_only: bool = False) -> str:
        pieces = [text] if self._marks is None else self._marks.split(text)
        written = []
        for piece in filter(None, pieces):
            token = self._tokens.get(piece)
            if token is None:
                written.append(_quoted(piece))
            else:
                written.append(f"<[{token}]>" if tokens_only else f"({_quoted(piece)} | <[{token}]>)")
        return " ".join(written) or '""'

    def _add(self, line: str) -> None:
        self._size += len(line)
        if self._size > MAX_CHARS:
            raise FormError(f"the grammar of the answer has more than {MAX_CHARS} characters")
        self._lines.append(line)


def _closed(form: Form, rest: Sequence[Form]) -> list[Form]:
    """Return the ways to write *form* and then *rest*, in none of which text is open before *rest*."""
    if isinstance(form, Until):
        found: list[Form] = []
        for mark in form.delimiters:
            following = after(rest, mark)
            if following is not None:
                found.append(sequenced([Until((mark,), included=True), *following]))
        return [*found, form] if all(part.may_be_empty for part in rest) or not form.delimiters else found
    if isinstance(form, Sequenced):
        return [sequenced([*form.parts, *rest])]
    if isinstance(form, OneOf):
        return [sequenced([part, *rest]) for part in form.parts]
    if isinstance(form, Repeated) and form.most == 1:
        once = sequenced([form.part, *rest])
        return [once] if form.least else [once, sequenced(rest)]
    raise FormError("the parser repeats what has no end of its own")


def _characters(form: Characters) -> str:
    most = "" if form.most is None else form.most
    count = "+" if form.most is None and form.least <= 1 else f"{{{max(form.least, 1)},{most}}}"
    pattern = f"(?:{form.pattern})".replace("/", r"\/")
    return f"/{pattern}{count}/{'' if form.least else '?'}"


def _count(least: int, most: int | None) -> str:
    if most is None:
        return "*" if not least else "+" if least == 1 else f"{{{least},}}"
    return "?" if (least, most) == (0, 1) else f"{{{least},{most}}}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
