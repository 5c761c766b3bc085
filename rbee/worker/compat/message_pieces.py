"""What is new in a message that grows: thought, text, and calls with their arguments in pieces. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rbee.contracts.ids import new_id
from rbee.worker.chat.library import AnswerMessage, ToolCallText
from rbee.worker.generation import TextWithLogprobs


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool; `arguments` is JSON in a string, cut off where the call is not `whole`."""

    id: str
    name: str
    arguments: str
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of the thought."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call has begun; its arguments follow."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """A piece of the arguments of the call that has begun: part of a JSON object."""

    text: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """The call that has begun is over. One that was cut off has no end."""


Piece = str | TextWithLogprobs | Thought | CallStart | Arguments | CallEnd
"""A string is text to show."""


class MessagePieces:
    """The pieces of one message; `called` tells whether a call has ended."""

    def __init__(self) -> None:
        self.called = False
        self._told = AnswerMessage("", "", ())
        self._open = False  # within the last call that was told

    def advance(self, message: AnswerMessage) -> list[Piece]:
        """Return what is new in *message*, which goes on from the one before."""
        return self._pieces(message, over=len(message.tool_calls) - 1)

    def end(self, message: AnswerMessage, *, cut: bool) -> list[Piece]:
        """Return the last pieces; a message that is *cut* off may end within a call."""
        calls = message.tool_calls
        return self._pieces(message, over=len(calls) - (cut and bool(calls) and not _is_json(calls[-1].arguments)))

    def _pieces(self, message: AnswerMessage, *, over: int) -> list[Piece]:
        """Return the pieces; the first calls, *over* in number, are over."""
        told, pieces = self._told, list[Piece]()
        if thought := message.reasoning[len(told.reasoning) :]:
            pieces.append(Thought(thought))
        if text := message.content[len(told.content) :]:
            pieces.append(text)
        calls, begun = message.tool_calls, len(told.tool_calls)
        if calls and begun < len(calls) and over < len(calls) and not calls[-1].arguments:
            calls = calls[:-1]  # a name may still grow until the arguments begin
        for number in range(max(begun - 1, 0), len(calls)):
            pieces += self._of_call(calls[number], told.tool_calls[number : number + 1], over=number < over)
        self._told = AnswerMessage(message.content, message.reasoning, calls)
        return pieces

    def _of_call(self, call: ToolCallText, told: tuple[ToolCallText, ...], *, over: bool) -> list[Piece]:
        pieces: list[Piece] = []
        if not told:
            pieces.append(CallStart(call.id or _new_id(), call.name))
            self._open = True
        if not self._open:
            return pieces
        if rest := call.arguments[len(told[0].arguments) if told else 0 :]:
            pieces.append(Arguments(rest))
        if over:
            pieces += [CallEnd()] if call.arguments else [Arguments("{}"), CallEnd()]
            self._open, self.called = False, True
        return pieces


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _new_id() -> str:
    return new_id("call").replace("-", "_")
