"""Mask keys, tokens and passwords in everything that is printed or stored."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

MASK: Final = "********"
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
    """

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
        text = _KEYS.sub(_masked, text)
        # Most lines have neither: the search costs more than all else here.
        return _IN_ADDRESSES.sub(_masked, text) if "://" in text or "=" in text else text


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
