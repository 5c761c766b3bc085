"""Read an answer as it grows: content, thoughts and calls apart. What is in no form of the model is text."""

from __future__ import annotations

import re
from typing import Final

from rbee.worker.chat.library import AnswerMessage, ChatLibraryError, NativeParser

MAX_DEPTH: Final = 500
"""Brackets that may be open at once: llama.cpp's parser takes some hundred bytes of stack for each, and 8 MB is all."""

_BRACKETS: Final = re.compile(r"[\[\]{}]")
_OPENING: Final = "[{"


_EMPTY: Final = AnswerMessage("", "", ())


class AnswerReader:
    """A reader of one answer, which takes nothing back of what it has read.

    Args:
        parser: for the request that is answered.
        ends: the texts that end a thought.
        single: of several calls only the first counts.
    """

    def __init__(self, parser: NativeParser, *, ends: tuple[str, ...] = (), single: bool = False) -> None:
        self._parser = parser
        self._calls = 1 if single else None
        self._ends = ends
        self._seen = 0
        self._depth = 0
        self._too_deep = False
        self._last = _EMPTY
        self._begun = self._parsed("", final=False) or _EMPTY

    def read(self, text: str, *, final: bool) -> AnswerMessage:
        """Return the message that *text* is, or begins; *text* is what was read before, and more.

        What is in no form of the model changes nothing in the middle of an answer, and is content at its end.
        """
        now = None if self._is_too_deep(text) else self._parsed(text, final=final)
        if now is not None:
            now = _without(now, self._begun)
        if now is None or (final and text.strip() and now == _EMPTY):
            now = self._as_content(text) if final else self._last
        self._last = _extended(self._last, now)
        return self._last

    def _parsed(self, text: str, *, final: bool) -> AnswerMessage | None:
        try:
            message = self._parser.parse(text, partial=not final)
        except ChatLibraryError:
            return None
        return AnswerMessage(message.content, message.reasoning, message.tool_calls[: self._calls])

    def _as_content(self, text: str) -> AnswerMessage:
        """Return the message of a text that is in no form of the model: what follows the thought is content."""
        places = [at + len(end) for end in self._ends if (at := text.find(end)) >= 0]
        thought = self._parsed(text[: min(places)], final=False) if places and not self._too_deep else None
        if thought is None or not thought.reasoning:
            return AnswerMessage(text, "", ())
        return AnswerMessage(text[min(places) :].lstrip("\n"), _without(thought, self._begun).reasoning, ())

    def _is_too_deep(self, text: str) -> bool:
        """Return whether more than `MAX_DEPTH` brackets are open somewhere; those inside strings count too."""
        for match in _BRACKETS.finditer(text, self._seen):
            self._depth = self._depth + 1 if match[0] in _OPENING else max(0, self._depth - 1)
            if self._depth > MAX_DEPTH:
                self._too_deep = True
        self._seen = len(text)
        return self._too_deep


def _without(message: AnswerMessage, begun: AnswerMessage) -> AnswerMessage:
    """Return a message without what the prompt had begun of it."""
    content, reasoning = message.content.removeprefix(begun.content), message.reasoning.removeprefix(begun.reasoning)
    return AnswerMessage(content, reasoning, message.tool_calls)


def _extended(last: AnswerMessage, now: AnswerMessage) -> AnswerMessage:
    """Return *now* where it goes on from *last*, and *last* where it does not."""
    calls = tuple(
        call if (call.name, call.arguments[: len(was.arguments)]) == (was.name, was.arguments) else was
        for was, call in zip(last.tool_calls, now.tool_calls, strict=False)
    )
    return AnswerMessage(
        now.content if now.content.startswith(last.content) else last.content,
        now.reasoning if now.reasoning.startswith(last.reasoning) else last.reasoning,
        (*calls, *last.tool_calls[len(calls) :], *now.tool_calls[len(last.tool_calls) :]),
    )
