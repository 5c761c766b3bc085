"""The worker's text: whole characters, and nothing of a stop string."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.worker.text.detokenizer import IncrementalDetokenizer


def feed(out: IncrementalDetokenizer, *pieces: bytes) -> list[str]:
    return [out.feed(piece) for piece in pieces]


def test_a_character_is_held_back_until_it_is_whole() -> None:
    """No half of an emoji is shown."""
    bee = "🐝".encode()

    assert feed(IncrementalDetokenizer(), bee[:1], bee[1:3], bee[3:] + b"!") == ["", "", "🐝!"]


def test_bytes_that_are_no_text_are_replaced() -> None:
    """Rubbish from a model does not end the stream."""
    assert feed(IncrementalDetokenizer(), b"a\xff", b"b") == ["a\ufffd", "b"]


def test_a_broken_last_character_is_dropped() -> None:
    """An answer that ends inside a character ends before it."""
    out = IncrementalDetokenizer()

    assert feed(out, b"a\xf0\x9f") == ["a"]
    assert out.finish() == ""


def test_a_stop_string_over_several_tokens_is_not_shown() -> None:
    """What may become a stop string is held back, and neither it nor what follows is shown."""
    out = IncrementalDetokenizer(["</end>"])

    assert feed(out, b"ok </", b"en", b"d> more", b"more") == ["ok ", "", "", ""]
    assert out.stop is not None
    assert out.finish() == ""


def test_what_does_not_become_a_stop_string_is_shown_late() -> None:
    """Text that was held back in vain is shown."""
    out = IncrementalDetokenizer(["</end>"])

    assert feed(out, b"a </en", b"try>") == ["a ", "</entry>"]
    assert out.stop is None


def test_held_text_is_shown_at_the_end() -> None:
    """When the model ends by itself, the beginning of a stop string is plain text."""
    out = IncrementalDetokenizer(["</end>"])
    out.feed(b"a <")

    assert out.finish() == "<"


def test_the_first_stop_string_wins() -> None:
    """Of several stop strings the one that comes first in the text counts."""
    out = IncrementalDetokenizer(["zz", "b"])

    assert out.feed(b"a b zz") == "a "


@given(
    text=st.text(alphabet="ab🐝ß ", max_size=60),
    stops=st.lists(st.text(alphabet="ab🐝", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=20),
)
def test_the_cutting_into_tokens_does_not_matter(text: str, stops: list[str], cuts: list[int]) -> None:
    """However the bytes are cut, what is shown is the text up to the first stop string."""
    out = IncrementalDetokenizer(stops)
    data, shown, turn = text.encode(), "", 0
    while data and out.stop is None:
        size = cuts[turn % len(cuts)]
        shown, data, turn = shown + out.feed(data[:size]), data[size:], turn + 1
    shown += out.finish()

    # With several stop strings, the one that is complete first counts.
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    first_end = min(ends)[0] if ends else None
    allowed = {text} if first_end is None else {text[:at] for _, at in ends}
    assert shown in allowed
    assert (out.stop is not None) == bool(ends)


@pytest.mark.parametrize("stop", ["aab", "aaa"])
def test_overlapping_beginnings_are_found(stop: str) -> None:
    """A stop string is found even if its beginning repeats."""
    out = IncrementalDetokenizer([stop])
    shown = "".join(feed(out, *(b"x", b"a", b"a", b"a", b"b")))

    assert out.stop is not None
    assert shown in ("xa", "x")
