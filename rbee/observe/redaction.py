"""Mask keys, tokens and passwords in everything that is printed or stored."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

MASK: Final = "********"
_SHORTEST: Final = 8
_WORD: Final = re.compile(r"[A-Za-z0-9_-]+")
_TELLING: Final = "signature|sig|token|secret|key|credential|password|passwd|pwd|policy"
_KEYS: Final = re.compile(r"(?i)(bearer\s+)[^\s\"',;]+|\b(hf_|sk-|ghp_)[A-Za-z0-9_-]{8,}")
_IN_ADDRESSES: Final = re.compile(
    # The password of a database may hold a slash, which ends the host of any other address.
    r"(?i)((?:postgres|mysql|mariadb|mssql|oracle)[a-z0-9+]*://[^/\s:@]*:)[^\s\"']+(?=@)"
    r"|(://[^/\s:@]*:)[^@\s/]+(?=@)"
    r"|(https?://)[^/\s:@\"']+(?=@)"
    rf"|([?&][\w.%-]*(?:{_TELLING})[\w.%-]*=)[^&\s\"'#<>]+"
    r"|(\bpassword=)[^&\s\"']+"
)


class Redactor:
    """A filter that masks known secrets and what looks like one.

    That is: bearer keys, hub tokens, passwords in URLs and connection strings, and signatures and tokens in queries.
    A queen knows the key of every worker of its fleet, and writes lines for each request: what a line costs does not
    depend on how many keys there are, which are found by how they begin.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        self._others: set[str] = set()
        self._words: dict[str, set[str]] = {}
        self._shortest = sys.maxsize
        for secret in known:
            self.add(secret)

    def add(self, secret: str) -> None:
        """Mask *secret* from now on; secrets shorter than 8 characters would match ordinary words and are ignored."""
        if len(secret) < _SHORTEST:
            return
        if not _WORD.fullmatch(secret):
            self._others.add(secret)
            return
        self._words.setdefault(secret[:_SHORTEST], set()).add(secret)
        if len(secret) < self._shortest:
            self._shortest = len(secret)
            self._long_words = re.compile(rf"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{{{self._shortest},}}")

    def clean(self, text: str) -> str:
        """Return *text* without secrets."""
        for secret in self._others:
            if secret in text:
                text = text.replace(secret, MASK)
        if self._words:
            text = self._long_words.sub(self._without_words, text)
        text = _KEYS.sub(_masked, text)
        # Most lines have neither: the search costs more than all else here.
        return _IN_ADDRESSES.sub(_masked, text) if "://" in text or "=" in text else text

    def _without_words(self, match: re.Match[str]) -> str:
        """Mask the secrets in a word that is long enough to hold one."""
        word, kept, start, at = match[0], [], 0, 0
        while at + self._shortest <= len(word):
            secrets = [
                secret for secret in self._words.get(word[at : at + _SHORTEST], ()) if word.startswith(secret, at)
            ]
            if secrets:
                kept += [word[start:at], MASK]
                start = at = at + len(max(secrets, key=len))
            else:
                at += 1
        return "".join([*kept, word[start:]])


def _masked(match: re.Match[str]) -> str:
    return f"{match[match.lastindex]}{MASK}" if match.lastindex else MASK


def secrets_in_url(url: str) -> set[str]:
    """Return the passwords in a URL, as they are written and as they are meant; also where it cannot be parsed."""
    user, _, host = url.partition("://")[2].rpartition("@")
    found = {user.partition(":")[2]} if host else set()
    try:
        query = urlsplit(url).query
    except ValueError:
        query = url.partition("?")[2]
    found |= {value for name, value in parse_qsl(query) if re.search(_TELLING, name, re.IGNORECASE)}
    return {form for secret in found for form in (secret, unquote(secret)) if secret}
