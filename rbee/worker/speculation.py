"""Guess the next tokens of streams from their own: what followed the last tokens before may follow them again.

Pure: tokens go in, drafts come out; the batcher has them evaluated beside the token that is next anyway, and keeps
of a draft what the sampler then chooses by itself. A wrong guess costs time and changes no text.

All streams have a draft, of one length, or none has: the engine evaluates sequences together only as far as they
are equally long, so that any other draft would be a second pass over the weights, for which every stream waits.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LEAST_AGREED: Final = 3  # tokens; two that agree follow each other by chance in any text
_KEYS: Final = (12, 6, LEAST_AGREED)  # tokens to look for, longest first: the longer, the surer
_TYPE: Final = "i"
_WIDTH: Final = array(_TYPE).itemsize


@dataclass(frozen=True, slots=True)
class Stream:
    """A slot that generates: all its tokens so far, and how many may come after the one that is next."""

    slot: int
    tokens: Sequence[int]
    room: int


class Drafter:
    """Guess how one stream goes on.

    A draft is as long as the place that it comes from agrees with the stream's end: of what has gone on for long much
    is risked, of what may be chance little. Nor is it longer than the last ones deserve: twice what came true whole,
    else half as much as was trusted before, or one more than came true. On a CPU, where a row costs nearly as much as
    a step, that keeps text which never repeats itself from becoming slower.
    """

    def __init__(self) -> None:
        self._text = bytearray()  # the tokens, each in `_WIDTH` bytes, so that the search is one call into C
        self._trusted = LEAST_AGREED

    def draft(self, tokens: Sequence[int], most: int) -> list[int]:
        """Guess at most *most* tokens; none where nothing is found. *tokens* are those of the last call, and more."""
        self._text += array(_TYPE, tokens[len(self._text) // _WIDTH :]).tobytes()
        for length in _KEYS:
            start = self._after(length)
            if start is not None:
                return self._from(tokens, start, length, min(most, self._trusted))
        return []

    def judged(self, drafted: int, accepted: int) -> None:
        """Take note how much of the last draft came true."""
        if accepted == drafted:
            self._trusted = max(self._trusted, 2 * drafted)
        else:
            self._trusted = max(self._trusted // 2, accepted + 1)

    def _after(self, length: int) -> int | None:
        """Give the position behind the last place, but the end itself, that has the last *length* tokens."""
        text, size = self._text, length * _WIDTH
        if len(text) <= size:
            return None
        key, end = text[-size:], len(text) - _WIDTH
        while (at := text.rfind(key, 0, end)) >= 0:
            if at % _WIDTH == 0:
                return (at + size) // _WIDTH
            end = at + size - 1  # halves of two tokens
        return None

    def _from(self, tokens: Sequence[int], start: int, agreed: int, most: int) -> list[int]:
        end = len(tokens)
        while agreed < most and agreed < start and tokens[start - agreed - 1] == tokens[end - agreed - 1]:
            agreed += 1
        period = end - start  # what repeats itself up to its end goes on so
        return [tokens[start + number % period] for number in range(min(agreed, most))]


class Speculation:
    """The drafters of all slots.

    Args:
        most: drafted tokens in one batch, which the streams share.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._drafters: dict[int, Drafter] = {}

    def drafts(self, streams: Sequence[Stream]) -> dict[int, list[int]]:
        """Give each stream a draft by its slot, all of one length; none at all where one has none."""
        if not streams:
            return {}
        length = min(self._most // len(streams), *(stream.room for stream in streams))
        drafts: dict[int, list[int]] = {}
        for stream in streams:
            if length <= 0:
                return {}
            drafter = self._drafters.setdefault(stream.slot, Drafter())
            draft = drafts[stream.slot] = drafter.draft(stream.tokens, length)
            length = len(draft)
        return {slot: draft[:length] for slot, draft in drafts.items()} if length else {}

    def judged(self, slot: int, drafted: int, accepted: int) -> None:
        """Take note how much of a slot's last draft came true."""
        self._drafters[slot].judged(drafted, accepted)

    def end(self, slot: int) -> None:
        """Forget what the slot's stream has said."""
        self._drafters.pop(slot, None)
