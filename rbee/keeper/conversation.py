"""A conversation with a model, and the `/` commands that change it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from rbee.spelling import closest

HELP: Final = """\
/help               show this
/new                forget the conversation
/retry              have the last question answered again
/undo               forget the last question and its answer
/system [TEXT]      show, set or (with -) remove the system prompt
/set [NAME VALUE]   show or set temperature, top_p, top_k, min_p, seed, max_tokens, reasoning_effort; - removes one
/model [NAME]       show the model, or go on with another one
/save FILE          write the conversation as JSON
/exit               end; so does Ctrl-D

A line that ends with a backslash goes on in the next one, and so does everything between two lines of three quotes.
What is pasted is one question, also of several lines.
Ctrl-C stops an answer, which stays as far as it came."""

_NUMBERS: Final[dict[str, type[int] | type[float]]] = {
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "min_p": float,
    "seed": int,
    "max_tokens": int,
}
_TEXTS: Final = ("reasoning_effort",)
_NONE: Final = "-"


class CommandError(Exception):
    """Raised for a command that cannot be obeyed; says why."""


@dataclass(slots=True)
class Reply:
    """What a command leads to: `text` to show, a question to `ask`, a `file` to write, or the `end`."""

    text: str = ""
    ask: bool = False
    file: str = ""
    end: bool = False


@dataclass(slots=True)
class Conversation:
    """What was said so far, in the messages of the chat interface, and how the model is asked."""

    model: str
    system: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, str]] = field(default_factory=list)
    _replaced: list[dict[str, str]] = field(default_factory=list)

    def body(self) -> dict[str, Any]:
        """Return the request for the next answer."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        fixed = {"model": self.model, "stream": True, "stream_options": {"include_usage": True}}
        return {**fixed, "messages": [*system, *self.messages], **self.options}

    def ask(self, text: str) -> None:
        """Add what the user says, in place of a question that had no answer."""
        if self.messages and self.messages[-1]["role"] == "user":
            self.messages.pop()
        self.messages.append({"role": "user", "content": text})

    def answered(self, text: str) -> None:
        """Add an answer, which may have been stopped. Without one, that which it was to replace is back."""
        self.messages += [{"role": "assistant", "content": text}] if text else self._replaced
        self._replaced = []

    def obey(self, line: str) -> Reply:
        """Obey a line that begins with a slash. Raises CommandError."""
        name, _, argument = line[1:].strip().partition(" ")
        argument = argument.strip()
        obeyed = self._commands.get(name)
        if obeyed is None:
            meant = closest(name, self._commands)
            hint = f"; did you mean /{meant}?" if meant else "."
            raise CommandError(f"There is no command /{name[:40]}{hint} See /help.")
        return obeyed(argument)

    @property
    def _commands(self) -> dict[str, Callable[[str], Reply]]:
        return {
            "help": lambda _: Reply(HELP),
            "new": self._forget,
            "retry": self._retry,
            "undo": self._undo,
            "system": self._set_system,
            "set": self._set_option,
            "model": self._set_model,
            "save": _save,
            **dict.fromkeys(("exit", "quit", "bye"), lambda _: Reply(end=True)),
        }

    def _forget(self, _argument: str) -> Reply:
        self.messages.clear()
        return Reply("A new conversation.")

    def _set_model(self, name: str) -> Reply:
        self.model = name or self.model
        return Reply(f"The model is {self.model}.")

    def _retry(self, _argument: str) -> Reply:
        if not self.messages:
            raise CommandError("Nothing was asked yet.")
        if self.messages[-1]["role"] == "assistant":
            self._replaced = [self.messages.pop()]
        return Reply(ask=True)

    def _undo(self, _argument: str) -> Reply:
        if not self.messages:
            raise CommandError("Nothing was asked yet.")
        while self.messages and self.messages.pop()["role"] != "user":
            pass
        left = len(self.messages) // 2
        return Reply(f"Forgotten. {left} answer{'s are' if left != 1 else ' is'} left.")

    def _set_system(self, text: str) -> Reply:
        if text:
            self.system = None if text == _NONE else text
        return Reply(f"The system prompt is: {self.system}" if self.system else "There is no system prompt.")

    def _set_option(self, argument: str) -> Reply:
        name, _, value = argument.partition(" ")
        value = value.strip()
        if not name:
            listed = ", ".join(f"{key} {value}" for key, value in self.options.items())
            return Reply(f"Set: {listed}." if listed else "Nothing is set: the model's defaults apply.")
        if name not in _NUMBERS and name not in _TEXTS:
            meant = closest(name, [*_NUMBERS, *_TEXTS])
            raise CommandError(f"{name[:40]} cannot be set{f'; did you mean {meant}?' if meant else ''} See /help.")
        if not value:
            raise CommandError(f"Name the value: /set {name} VALUE")
        if value == _NONE:
            self.options.pop(name, None)
            return Reply(f"{name} is as the model has it.")
        try:
            self.options[name] = _NUMBERS[name](value) if name in _NUMBERS else value
        except ValueError:
            raise CommandError(f"{value[:40]!r} is no number for {name}.") from None
        return Reply(f"{name} is {self.options[name]}.")


def _save(file: str) -> Reply:
    if not file:
        raise CommandError("Name the file: /save FILE")
    return Reply(file=file)


def summary(usage: dict[str, Any], first_s: float | None, took_s: float) -> str:
    """Return what an answer took, as one line."""
    tokens = int(usage.get("completion_tokens") or 0)
    prompt = int(usage.get("prompt_tokens") or 0)
    cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
    parts = [f"{tokens} tokens"]
    if first_s is not None:
        parts.append(f"the first after {first_s:.2f} s")
        if tokens > 1 and took_s > first_s:
            parts.append(f"{(tokens - 1) / (took_s - first_s):.0f} tokens/s")
    if prompt:
        parts.append(f"{cached} of {prompt} prompt tokens from the cache")
    return ", ".join(parts)
