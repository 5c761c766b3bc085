"""Mask keys and tokens in everything that is printed or stored."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MASK: Final = "********"
_SHAPES: Final = re.compile(
    r"(?i)(bearer\s+)[^\s\"',;]+|\b(hf_|sk-|ghp_)[A-Za-z0-9_-]{8,}|(://[^/\s:@]*:)[^@\s/]+(?=@)"
)


class Redactor:
    """A filter that masks known secrets and what looks like one (bearer keys, hub tokens, passwords in URLs)."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._known = {secret for secret in known if len(secret) >= 8}

    def add(self, secret: str) -> None:
        """Mask *secret* from now on; secrets shorter than 8 characters would match ordinary words and are ignored."""
        if len(secret) >= 8:
            self._known.add(secret)

    def clean(self, text: str) -> str:
        """Return *text* without secrets."""
        for secret in self._known:
            if secret in text:
                text = text.replace(secret, MASK)
        return _SHAPES.sub(lambda match: (match[1] or match[2] or match[3] or "") + MASK, text)
