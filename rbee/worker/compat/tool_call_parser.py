"""Read the calls of tools out of a model's text as it comes: the name first, then the arguments in pieces. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from rbee.contracts.ids import new_id
from rbee.worker.compat.json_scanner import WS, BraceMatcher, find_object_end, leading_space
from rbee.worker.compat.tools import Call, ToolCallFormat

# A name is plain and short; one that is not is read once the call is whole. Nor has it the beginning of a closing mark.
_HEAD: Final = re.compile(
    WS.join(
        ["", r"\{", '"name"', ":", r'"([^"\\<\x00-\x1f]{0,256})"', ",", '"(?:arguments|parameters)"', ":", r"(?=\{)"]
    )
)


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


ParsedPiece = str | CallStart | Arguments | CallEnd
"""What a text turns out to be, piece by piece; a string is text to show."""

_Place = Literal["text", "head", "arguments", "rest", "after"]


class ToolCallParser:
    """Part what a model writes into text and calls.

    What could be the beginning of a call is held back; what begins like one and is none is given as the text it is.
    What is told does not depend on how the text is cut, but for where pieces end. Once a call is begun it cannot be
    taken back: what follows it and does not belong to it is text.

    `called` tells whether there has been a call, `open` whether the last one has not ended.
    """

    def __init__(self, form: ToolCallFormat) -> None:
        self.called = False
        self.open = False
        self._form = form
        self._held = ""
        self._place: _Place = "text"
        self._listing = False  # within a list of calls
        self._gap: str | None = None  # white space since the last call; None after other text
        self._braces = BraceMatcher()
        self._steps: dict[_Place, Callable[[list[ParsedPiece]], bool]] = {
            "text": self._in_text,
            "head": self._in_head,
            "arguments": self._in_arguments,
            "rest": self._in_rest,
            "after": self._after,
        }

    def feed(self, text: str) -> list[ParsedPiece]:
        """Add text and return the pieces that are certain now."""
        self._held += text
        found: list[ParsedPiece] = []
        while self._held and self._steps[self._place](found):
            pass
        return found

    def finish(self) -> list[ParsedPiece]:
        """Return the text that was held back, at the end."""
        found: list[ParsedPiece] = []
        held, self._held = self._held, ""
        if self._place == "head":
            self._whole(found, held, "")
        elif self._place == "arguments" and held:
            found.append(Arguments(held))
        elif self._place in ("text", "rest"):
            self._show(found, held)
        return found

    # Each step gives whether another may follow at once.

    def _in_text(self, found: list[ParsedPiece]) -> bool:
        opening = self._form.opening
        at = self._held.find(opening)
        if at >= 0:
            self._show(found, self._take(at))
            if not self._form.within:
                self._take(len(opening))
            self._place = "head"
            return True
        lengths = range(min(len(opening) - 1, len(self._held)), 0, -1)
        keep = next((length for length in lengths if self._held.endswith(opening[:length])), 0)
        self._show(found, self._take(len(self._held) - keep))
        return False

    def _in_head(self, found: list[ParsedPiece]) -> bool:
        """Emit a call as soon as its name is known and its arguments begin; else once it is whole."""
        lead, beginnings = self._lead()
        start = self._first()
        if not start:
            return False
        if start not in beginnings:
            self._show(found, self._mark())
            self._place = "text"
            return True
        head = _HEAD.match(self._held, lead)
        if head is not None:
            self._listing = self._listing or "[" in self._held[:lead]
            self._begin(found, head[1])
            self._take(head.end())
            self._place, self._braces = "arguments", BraceMatcher()
            return True
        closing = self._form.closing
        at = self._held.find(closing) if closing else -1
        if at >= 0:
            body = self._take(at)
            self._take(len(closing))
            self._place = "text"
            self._whole(found, body, closing)
        return at >= 0

    def _in_arguments(self, found: list[ParsedPiece]) -> bool:
        closing = self._form.closing
        count, over = self._braces.follow(self._held, closing)
        if count:
            found.append(Arguments(self._take(count)))
        if over or (closing and self._held.startswith(closing)):
            self._end(found)
            self._place = "rest" if over else "after"
            return True
        return False

    def _in_rest(self, found: list[ParsedPiece]) -> bool:
        """Pass over what else is in the object of a call whose arguments are over."""
        start = self._first()
        if not start:
            return False
        if start not in ",}":
            self._place = "after"
            return True
        closing = self._form.closing
        mark = self._held.find(closing) if closing else -1
        end = find_object_end(self._held)
        if end is not None and not 0 <= mark < end:
            self._take(end)
            self._place = "after"
        elif mark >= 0:
            self._show(found, self._take(mark))
            self._place = "after"
        return self._place != "rest"

    def _after(self, found: list[ParsedPiece]) -> bool:
        """Pass over what ends a call, or find the next of a list."""
        del found
        start = self._held[leading_space(self._held) :]
        end = "]" if self._listing else self._form.closing
        if not start or (end.startswith(start) and start != end):
            return False
        if self._listing and start[0] == ",":
            self._place = "head"
            return True
        self._place = "text"
        self._listing = False
        if end and start.startswith(end):
            self._take(len(self._held) - len(start) + len(end))
        return True

    def _take(self, count: int) -> str:
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def _first(self) -> str:
        """Return the first character that is held and no white space, if one is."""
        at = leading_space(self._held)
        return self._held[at : at + 1]

    def _mark(self) -> str:
        """Return what has been taken of the text before a call's head, and may have to be shown."""
        return "" if self._form.within or self._listing else self._form.opening

    def _lead(self) -> tuple[int, str]:
        """Count what stands before a call's object, and give what a head may begin with."""
        held = self._held
        space = leading_space(held)
        if self._listing:
            return space + 1, ","
        if self._form.listed:
            return space + held.startswith("[", space), "[{"
        return space, "{"

    def _whole(self, found: list[ParsedPiece], body: str, closing: str) -> None:
        """Emit the calls that *body* is, or show it if it is none."""
        calls = _parsed("[" + body[leading_space(body) + 1 :] if self._listing else body, listed=self._form.listed)
        if calls is None:
            self._show(found, self._mark() + body + closing)
            return
        for call in calls:
            self._begin(found, call.name, call.id)
            found.append(Arguments(call.arguments))
            self._end(found)

    def _begin(self, found: list[ParsedPiece], name: str, call_id: str | None = None) -> None:
        self.called = self.open = True
        self._gap = None
        found.append(CallStart(call_id or _new_id(), name))

    def _end(self, found: list[ParsedPiece]) -> None:
        self.open = False
        self._gap = ""
        found.append(CallEnd())

    def _show(self, found: list[ParsedPiece], text: str) -> None:
        """Show text; white space between calls, and after the last one, is none."""
        if self._gap is not None:
            text = self._gap + text
            if not text.strip():
                self._gap = text
                return
            self._gap = None
        if text:
            found.append(text)


def _parsed(body: str, *, listed: bool) -> list[Call] | None:
    """Read calls that are whole; None if they are none."""
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    items = value if listed and isinstance(value, list) else [value]
    calls = []
    for item in items:
        arguments = item.get("arguments", item.get("parameters")) if isinstance(item, dict) else None
        if not isinstance(arguments, dict) or not isinstance(item.get("name"), str):
            return None
        calls.append(Call(_new_id(), item["name"], json.dumps(arguments)))
    return calls or None


def _new_id() -> str:
    return new_id("call").replace("-", "_")
