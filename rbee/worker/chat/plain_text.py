"""Keep what a client wrote from being read as the marks by which a model tells turns apart.

A mark is the text of a control token. Where a client's text holds one, a character is put into it that nobody can
guess, the template renders that, and the rendered text is cut: at the marks, which are the template's own now, and
nowhere else. What lies between is tokenized as plain text, without the character.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

_FIRST: Final = 0xE000  # the private use area, in which no text has a meaning
_COUNT: Final = 6400
_NOT_TEXT: Final = ("role", "type")  # ours, or one of a few words


def client_texts(value: Any) -> Iterator[str]:
    """Yield every text that a client wrote in messages or tools, keys of objects included."""
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            if key not in _NOT_TEXT or not isinstance(inner, str):
                yield from client_texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from client_texts(inner)


def forged_marks(marks: Collection[str], texts: Collection[str]) -> set[str]:
    """Return the marks that one of *texts* holds, or may become a part of when the template puts it beside others."""
    return {mark for mark in marks if any(_may_form(mark, text) for text in texts)}


def choose_guard(texts: Collection[str]) -> str:
    """Return a character that is in none of *texts*, and that nobody can guess."""
    while True:
        guard = chr(_FIRST + secrets.randbelow(_COUNT))
        if not any(guard in text for text in texts):
            return guard


def guarded(value: Any, marks: Collection[str], guard: str) -> Any:
    """Return messages or tools in which the client's texts hold none of *marks*, nor the beginning of one."""
    if isinstance(value, str):
        return guarded_text(value, marks, guard)
    if isinstance(value, Mapping):
        return {
            guarded_text(key, marks, guard): inner
            if key in _NOT_TEXT and isinstance(inner, str)
            else guarded(inner, marks, guard)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [guarded(inner, marks, guard) for inner in value]
    return value


def guarded_text(text: str, marks: Collection[str], guard: str) -> str:
    """Return a text that holds none of *marks*, nor the beginning of one at its end."""
    for mark in marks:
        text = text.replace(mark, mark[:1] + guard + mark[1:])
    return text + guard if any(_overlaps(mark, text) for mark in marks) else text


def unescaped(text: str, guard: str) -> str:
    """Return a rendered text in which the guard is itself where the template has written JSON of ASCII only."""
    return text.replace(json.dumps(guard)[1:-1], guard)


def cut_at_marks(text: str, marks: Collection[str]) -> list[tuple[str, bool]]:
    """Return the parts of a rendered text in order, none of them empty, each with whether it is one of *marks*."""
    longest_first = sorted(marks, key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
    return [(part, bool(number % 2)) for number, part in enumerate(parts) if part]


def _may_form(mark: str, text: str) -> bool:
    return mark in text or _overlaps(mark, text)


def _overlaps(mark: str, text: str) -> bool:
    """Return whether *text* ends with a beginning of *mark*, which another text could complete."""
    return any(text.endswith(mark[:length]) for length in range(1, len(mark)))
