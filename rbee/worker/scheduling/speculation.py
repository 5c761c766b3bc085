"""Draft the next tokens of streams from their own text: what followed the last tokens earlier may follow them again.

Pure: tokens go in, drafts come out; the batcher has them evaluated beside the token that is next anyway, and accepts
of a draft what the sampler then chooses by itself. A wrong draft costs time and changes no text.

All streams have a draft, of one length, or none has: the engine evaluates sequences together only as far as they
are equally long, so that any other draft would be a second pass over the weights, for which every stream waits.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MIN_MATCH: Final = 3  # tokens; two match by chance in any text
_KEYS: Final = (12, 6, MIN_MATCH)  # tokens to look for, longest first: the longer, the surer
_TYPE: Final = "i"
_WIDTH: Final = array(_TYPE).itemsize


@dataclass(frozen=True, slots=True)
class Stream:
    """A generating slot: all its tokens so far, and how many may come after the next one."""

    slot: int
    tokens: Sequence[int]
    room: int


class Drafter:
    """Draft the next tokens of one stream.

    A draft is at most as long as the match that it comes from: a long match is worth a long draft, a short one may be
    chance. Its maximum follows the last drafts: twice the length of one that was accepted whole, else half the maximum
    before, or one token more than was accepted. On a CPU, where a row costs nearly as much as a step, that keeps text
    which never repeats itself from becoming slower.
    """

    def __init__(self) -> None:
        self._text = bytearray()  # the tokens, each in `_WIDTH` bytes, so that the search is one call into C
        self._max_draft = MIN_MATCH

    def draft(self, tokens: Sequence[int], most: int) -> list[int]:
        """Return at most *most* tokens; none without a match. *tokens* are those of the last call, and more."""
        self._text += array(_TYPE, tokens[len(self._text) // _WIDTH :]).tobytes()
        for length in _KEYS:
            start = self._after(length)
            if start is not None:
                return self._from(tokens, start, length, min(most, self._max_draft))
        return []

    def record_acceptance(self, drafted: int, accepted: int) -> None:
        """Adapt to how much of the last draft was accepted."""
        if accepted == drafted:
            self._max_draft = max(self._max_draft, 2 * drafted)
        else:
            self._max_draft = max(self._max_draft // 2, accepted + 1)

    def _after(self, length: int) -> int | None:
        """Return the position behind the latest earlier occurrence of the last *length* tokens."""
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
        period = end - start  # a repetition that reaches the end continues
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
        """Return a draft for each stream by its slot, all of one length; none at all where one has none."""
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

    def record_acceptance(self, slot: int, drafted: int, accepted: int) -> None:
        """Adapt to how much of a slot's last draft was accepted."""
        self._drafters[slot].record_acceptance(drafted, accepted)

    def end(self, slot: int) -> None:
        """Forget the slot's stream."""
        self._drafters.pop(slot, None)
