"""Follow the thought of an answer: count its tokens, and end it when it has had enough of them. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

_NONE: Final[Sequence[int]] = ()


@dataclass(frozen=True, slots=True)
class ThoughtMarks:
    """How a thought is known.

    Args:
        start: the text with which it begins.
        ends: texts of which one ends it; the first is written where it is ended by force.
        begun: the prompt has begun it.
        budget: the most tokens that it may have; None for any number.
    """

    start: str
    ends: tuple[str, ...]
    begun: bool
    budget: int | None = None


class _State(Enum):
    BEFORE = "before"
    WITHIN = "within"
    AFTER = "after"


class Thought:
    """The thought of one answer; `tokens` counts its tokens, marks included.

    Args:
        closing: the tokens that end it.
    """

    def __init__(self, marks: ThoughtMarks, closing: Sequence[int]) -> None:
        self.tokens = 0
        self._marks = marks
        self._closing = closing
        self._state = _State.WITHIN if marks.begun else _State.BEFORE
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tail = ""
        self._keep = max(map(len, marks.ends)) - 1
        self._forced = False

    def feed(self, piece: bytes) -> Sequence[int]:
        """Add the bytes of a token; return the tokens that must come next, once, when the budget is used up."""
        if self._state is _State.AFTER:
            return _NONE
        self.tokens += 1
        self._tail += self._decoder.decode(piece)
        if self._state is _State.BEFORE:
            self._begin()
        if self._state is not _State.WITHIN:
            return _NONE
        if any(end in self._tail for end in self._marks.ends):
            self._state = _State.AFTER
            return _NONE
        self._tail = self._tail[-self._keep :] if self._keep else ""
        budget = self._marks.budget
        if budget is None or self._forced or self.tokens < budget:
            return _NONE
        self._forced = True
        return self._closing

    def _begin(self) -> None:
        """Decide whether the answer begins with a thought, once that can be told."""
        text, start = self._tail.lstrip(), self._marks.start
        if text.startswith(start):
            self._state, self._tail = _State.WITHIN, text[len(start) :]
        elif not start.startswith(text):
            self._state, self.tokens = _State.AFTER, 0
