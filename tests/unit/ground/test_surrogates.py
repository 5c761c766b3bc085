"""Half characters in what clients send become U+FFFD, and nothing else changes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.surrogates import MAX_ESCAPES, repaired_json, whole_characters


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (rb'"a \ud83d b"', "a \ufffd b"),
        (rb'"\ude00"', "\ufffd"),
        (rb'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (rb'"\\ud83d \ud83d"', "\\ud83d \ufffd"),
        (rb'"\\\ud83d"', "\\\ufffd"),
        (b'"\xed\xa0\xbd"', "\ufffd"),
        (b'"\xed\xa0\xbd\xed\xb8\x80"', "\U0001f600"),
    ],
)
def test_half_a_character_is_replaced(body: bytes, text: str) -> None:
    """Escapes and bytes of half surrogates become U+FFFD; pairs, and backslashes that are text, stay what they are."""
    repaired = repaired_json(body)

    assert repaired is not None
    assert json.loads(repaired) == text


@pytest.mark.parametrize("body", [b"", b'"\xff"', '"\u00fc \U0001f600"'.encode(), rb'"\ud83d\ude00"', rb'"\\ud83d"'])
def test_what_has_none_is_left_alone(body: bytes) -> None:
    """Whole characters need no repair, and bytes that are no text get none."""
    assert repaired_json(body) is None


@given(st.text(st.characters(), max_size=8), st.booleans())
def test_any_text_of_a_program_becomes_one_of_whole_characters(text: str, escaped: bool) -> None:
    """Whatever half characters a string has, its JSON can be read by any parser afterwards."""
    body = json.dumps(text, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    repaired = repaired_json(body) or body

    read = json.loads(repaired)

    assert read == whole_characters(text)
    read.encode("utf-8")


@pytest.mark.parametrize("escape", [rb"\\", rb"\ud83d"], ids=["backslashes", "halves"])
def test_a_text_of_escapes_is_not_repaired(escape: bytes) -> None:
    """A malformed body that is made of escapes is refused as it is, instead of holding the daemon that repairs it."""
    assert repaired_json(b'"' + escape * MAX_ESCAPES) is None
    assert repaired_json(b'"' + rb"\ud83d" + rb"\n" * MAX_ESCAPES + b'"') is not None
