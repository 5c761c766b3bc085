"""Replace half surrogates in a JSON text: what is left where a program cuts a string in the middle of a character.

JavaScript and Java programs send them, and no parser of Unicode takes them. Pure.
"""

from __future__ import annotations

import re
from typing import Final

# An escaped backslash is consumed too, so that its end begins no escape.
_ESCAPE: Final = re.compile(
    rb"\\(?:\\|u[dD](?:[89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|([89a-fA-F][0-9a-fA-F]{2})))"
)
MAX_ESCAPES: Final = 65_536
"""Escapes that are looked at: a body of megabytes of them, which is malformed anyway, would take most of a second."""

_REPLACEMENT: Final = rb"\ufffd"


def whole_characters(text: str) -> str:
    """Return *text* with U+FFFD in place of half surrogates; two halves that belong together become one character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def repaired_json(body: bytes) -> bytes | None:
    """Return a JSON text with U+FFFD in place of half surrogates, None where it has none, or `MAX_ESCAPES` escapes.

    They may be escapes, or encoded as if they were characters.
    """
    repaired, escapes = _ESCAPE.subn(lambda found: _REPLACEMENT if found[1] else found[0], body, count=MAX_ESCAPES)
    if escapes == MAX_ESCAPES:
        return None
    try:
        repaired.decode("utf-8")
    except UnicodeDecodeError:
        try:
            repaired = whole_characters(repaired.decode("utf-8", "surrogatepass")).encode()
        except UnicodeDecodeError:
            return None  # not text at all
    return None if repaired == body else repaired
