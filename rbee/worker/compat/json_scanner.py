"""Find where JSON ends while it still comes. Pure."""

from __future__ import annotations

import json
import re
from typing import Final

WS: Final = r"[ \t\r\n]*"  # what JSON takes for white space
_SPACE: Final = re.compile(WS)
_BEFORE_REST: Final = '{"":{}'
_DECODER: Final = json.JSONDecoder()


class BraceMatcher:
    """Follow JSON from its first brace on to the one that closes it; what is in between is not looked at."""

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = False
        self._escaped = False

    def follow(self, text: str, mark: str) -> tuple[int, bool]:
        """Continue with *text*; give how far it went, and whether that is the end.

        It halts before what is, or may become, *mark* outside of strings.
        """
        for at, char in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped = char == "\\"
                self._quoted = char != '"'
            elif char == '"':
                self._quoted = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if not self._depth:
                    return at + 1, True
            elif mark and mark.startswith(text[at : at + len(mark)]):
                return at, False
        return len(text), False


def leading_space(text: str) -> int:
    """Count the white space that a text begins with."""
    found = _SPACE.match(text)
    return found.end() if found is not None else 0


def find_object_end(text: str) -> int | None:
    """Count the characters up to the end of an object of which one value has been read; None where it is not whole."""
    try:
        _, end = _DECODER.raw_decode(_BEFORE_REST + text)
    except (ValueError, RecursionError):
        return None
    return end - len(_BEFORE_REST)
