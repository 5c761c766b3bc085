"""Read an answer as its text comes: not more often than it pays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final
from weakref import WeakSet

from rbee.worker.chat.answers import AnswerReader
from rbee.worker.chat.library import AnswerMessage
from rbee.worker.compat.message_pieces import MessagePieces, Piece
from rbee.worker.generation import TextWithLogprobs, TokenLogprob
from rbee.worker.progress_comments import PROGRESS_INTERVAL_S

READ_INTERVAL_S: Final = 0.01
_READ_SHARE: Final = 50  # all readings together take at most one part in so many of the time: each begins anew
_UNDERWAY: Final[WeakSet[AnswerReading]] = WeakSet()


class AnswerReading:
    """The reading of one answer: not more often than it pays."""

    def __init__(self, reader: AnswerReader, clock: Callable[[], float]) -> None:
        self._reader = reader
        self._clock = clock
        self._text: list[str] = []
        self._unread = False
        self._next = 0.0
        self._message = MessagePieces()
        self._logprobs: list[TokenLogprob] = []
        _UNDERWAY.add(self)

    @property
    def called(self) -> bool:
        """Return whether there has been a call that is whole."""
        return self._message.called

    @property
    def waits(self) -> bool:
        """Return whether there is text that was not read yet."""
        return self._unread

    def wait_s(self) -> float:
        """Return the seconds after which `pieces` is to be asked, if there is no more text until then."""
        return max(0.0, self._next - self._clock()) if self._unread else PROGRESS_INTERVAL_S

    def add(self, text: str, logprobs: Sequence[TokenLogprob]) -> None:
        """Add text; it is read by `pieces`."""
        self._text.append(text)
        self._logprobs += logprobs
        self._unread = True

    def pieces(self) -> list[Piece]:
        """Return what is new in the answer."""
        began = self._clock()
        if not self._unread or began < self._next:
            return []
        found = self._message.advance(self._read(final=False))
        now = self._clock()
        self._next = now + max(READ_INTERVAL_S, (now - began) * _READ_SHARE * len(_UNDERWAY))
        return self._with_logprobs(found)

    def end(self, *, cut: bool) -> list[Piece]:
        """Return the rest of the answer; one that is *cut* off may end within a call."""
        return self._with_logprobs(self._message.end(self._read(final=not cut), cut=cut))

    def _read(self, *, final: bool) -> AnswerMessage:
        self._unread = False
        text = "".join(self._text)
        self._text = [text]
        return self._reader.read(text, final=final)

    def _with_logprobs(self, pieces: list[Piece]) -> list[Piece]:
        """Return the pieces, the first text of them with the log probabilities of all tokens that were read."""
        if not self._logprobs:
            return pieces
        at = next((number for number, piece in enumerate(pieces) if isinstance(piece, str)), None)
        if at is not None:
            pieces[at] = TextWithLogprobs(str(pieces[at]), tuple(self._logprobs))
            self._logprobs.clear()
        return pieces
