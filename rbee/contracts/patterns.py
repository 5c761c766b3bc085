"""The patterns that texts of the interfaces must match, each with the words for who wrote another text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
"""Names that people give: of clients, declared models and presets."""

NODE_NAME: Final = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
IDENTIFIER: Final = r"^[A-Za-z0-9._-]{1,128}$"
MODEL_ID: Final = r"^[a-z0-9-]+$"
SHA256: Final = r"^[0-9a-f]{64}$"
ONE_LINE: Final = r"^[^\x00-\x1f\x7f]*$"
HEADER_TEXT: Final = r"^[!-~]*$"
ORIGIN: Final = r"^https?://[^/?#@]+$"
WHOLE_PATH: Final = r"^/"

_WORDS: Final = {
    NAME: "up to 63 letters, digits, dots, dashes and underscores, the first a letter or digit",
    NODE_NAME: "letters, digits, dots, dashes and underscores, the first and the last a letter or digit",
    IDENTIFIER: "up to 128 letters, digits, dots, dashes and underscores",
    MODEL_ID: "small letters, digits and dashes",
    SHA256: "64 hexadecimal digits, in small letters",
    ONE_LINE: "one line, without control characters",
    HEADER_TEXT: "printable ASCII, without spaces",
    ORIGIN: "http:// or https:// with a host, and nothing after it but a port",
    WHOLE_PATH: "a whole path, which begins with /",
}
_MISMATCH: Final = "string_pattern_mismatch"


def words(pattern: str) -> str:
    """Return what a text that matches one of the patterns above is made of."""
    return _WORDS[pattern]


def reason(finding: Mapping[str, Any]) -> str:
    """Return what pydantic says of a value, without naming a pattern: what the text must be instead."""
    if finding["type"] == _MISMATCH:
        return f"must be {words(finding['ctx']['pattern'])}"
    return str(finding["msg"]).removeprefix("Value error, ")
