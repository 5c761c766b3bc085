"""Convert tokens into text that may be shown: whole characters only, and nothing of a stop string.

Pure. Bytes of a character that is not complete yet are held back, and so is text that may still become a stop string.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class IncrementalDetokenizer:
    """The text of one generation.

    `stop` is the first stop string found; it and what follows are never returned.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stops)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stop: str | None = None

    def feed(self, piece: bytes) -> str:
        """Add the bytes of one token and return the text that may be shown now, perhaps none."""
        text = self._decoder.decode(piece)
        if not self._stops:
            return text
        if not text or self.stop is not None:
            return ""
        self._held += text
        found = [(at, stop) for at, stop in ((self._held.find(stop), stop) for stop in self._stops) if at >= 0]
        if found:
            at, self.stop = min(found)
            shown, self._held = self._held[:at], ""
            return shown
        keep = self._may_become_stop()
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return shown

    def finish(self) -> str:
        """Return the text that was held back, at the end; an incomplete last character is dropped."""
        shown, self._held = self._held, ""
        return shown if self.stop is None else ""

    def _may_become_stop(self) -> int:
        """Return how many characters at the end are the beginning of a stop string."""
        longest = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest
