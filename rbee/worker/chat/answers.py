"""Read an answer as it grows: content, thoughts and calls apart. What is in no form of the model is text."""

from __future__ import annotations

import re
from typing import Final

from rbee.worker.chat.library import AnswerMessage, ChatLibraryError, NativeParser

MAX_DEPTH: Final = 500
"""Brackets that may be open at once: llama.cpp's parser takes some hundred bytes of stack for each, and 8 MB is all."""

_BRACKETS: Final = re.compile(r"[\[\]{}]")
_OPENING: Final = "[{"


class AnswerReader:
    """A reader of one answer.

    Args:
        parser: for the request that is answered.
    """

    def __init__(self, parser: NativeParser) -> None:
        self._parser = parser
        self._seen = 0
        self._depth = 0
        self._too_deep = False
        self._last = AnswerMessage("", "", ())

    def read(self, text: str, *, final: bool) -> AnswerMessage:
        """Return the message that *text* is, or begins; *text* is what was read before, and more.

        Of text that no form of the model fits, a part in the middle of the answer changes nothing, and the end makes it
        content, whole as it is.
        """
        if self._is_too_deep(text):
            return AnswerMessage(text, "", ()) if final else self._last
        try:
            message = self._parser.parse(text, partial=not final)
        except ChatLibraryError:
            return AnswerMessage(text, "", ()) if final else self._last
        if final and text.strip() and message == AnswerMessage("", "", ()):
            return AnswerMessage(text, "", ())
        self._last = message
        return message

    def _is_too_deep(self, text: str) -> bool:
        """Return whether more than `MAX_DEPTH` brackets are open somewhere; those inside strings count too."""
        for match in _BRACKETS.finditer(text, self._seen):
            self._depth = self._depth + 1 if match[0] in _OPENING else max(0, self._depth - 1)
            if self._depth > MAX_DEPTH:
                self._too_deep = True
        self._seen = len(text)
        return self._too_deep
