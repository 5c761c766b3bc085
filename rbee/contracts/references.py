"""Name the providers of models, and write references as they may be shown: in lists, errors, logs, arguments, files.

The query of an address may be a signature or a token, and what stands before its host a password. The shown form has
neither, but it still tells two addresses apart, and it is its own shown form.
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from functools import lru_cache
from typing import Final

_ADDRESS: Final = re.compile(
    r"(?is)(?!file:|hf:|package:)([a-z][a-z0-9+.-]*:/{1,3})([^/?#]*@)?([^?#]*)(?:\?([^#]*))?(.*)"
)
_MASKED: Final = re.compile(r"masked=[0-9a-f]{16}")


class Provider(StrEnum):
    """The source of a model: the part of a reference before the first colon."""

    HF = "hf"
    FILE = "file"
    HTTPS = "https"
    PACKAGE = "package"


@lru_cache(maxsize=1024)
def shown_reference(reference: str) -> str:
    """Return *reference* without user name, password and query; what is no address is returned as it is.

    The query is replaced by `masked=` and 16 digits of its sha256.
    """
    found = _ADDRESS.fullmatch(reference)
    if found is None:
        return reference
    scheme, _, place, query, fragment = found.groups()
    if query and not _MASKED.fullmatch(query):
        query = f"masked={hashlib.sha256(query.encode()).hexdigest()[:16]}"
    return f"{scheme}{place}{'?' + query if query else ''}{fragment}"


def short_reference(reference: str) -> str:
    """Return the part of a model reference that a person reads: the file's name, or what follows the provider."""
    shown = shown_reference(reference)
    return shown.rsplit("/", 1)[-1] or shown


def is_masked(address: str) -> bool:
    """Return whether *address* has lost its query, so that nothing can be fetched from it."""
    found = _ADDRESS.fullmatch(address)
    return found is not None and bool(_MASKED.fullmatch(found[4] or ""))
