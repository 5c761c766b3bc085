"""`chat`: a conversation in the terminal."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rbee.keeper.ui.lazy import Flags, KeeperCommand

if TYPE_CHECKING:
    from rbee.client.queen import QueenClient
    from rbee.keeper.conversation import Conversation
    from rbee.keeper.ui.output import Output


@click.command(cls=KeeperCommand)
@click.argument("model", metavar="MODEL")
@click.option("--system", metavar="TEXT", help="The system prompt.")
@click.option("--temperature", type=click.FloatRange(0, 2), metavar="X", help="Sampling temperature.")
@click.option("--max-tokens", type=click.IntRange(1, 1_000_000), metavar="N", help="Longest answer, in tokens.")
@click.pass_obj
def chat(flags: Flags, /, model: str, system: str | None, **options: Any) -> None:
    """Talk with MODEL: a declared name, a preset, an alias or a reference.

    Answers come as they are written, thoughts dimmed before them. /help lists what else can be typed: another system
    prompt or model, settings, a question again. Ctrl-C stops an answer, Ctrl-D ends. From a pipe, each line is a
    question. Where no queen runs, one is started, and stopped at the end.
    """
    from rbee.keeper.conversation import Conversation
    from rbee.keeper.fleet.registration import register_missing
    from rbee.keeper.model_names import resolve_for
    from rbee.keeper.queen.lifecycle import queen_for
    from rbee.keeper.session import Session
    from rbee.keeper.ui import interrupts

    if flags.json:
        raise click.UsageError("chat is for people; for JSON: rbee-keeper infer --json, or the queen's own interfaces.")
    session = Session(flags)
    given = {name: value for name, value in options.items() if value is not None}
    with queen_for(session) as queen:
        if not queen.owned:
            register_missing(session, queen.client)
        names: Callable[[str], str] = lambda name: resolve_for(session, name)  # noqa: E731 - a parameter
        talk = Conversation(names(model), system=system, options=given)
        with interrupts.each_raises():
            _talk(talk, queen.client, session.out, names)


def _talk(talk: Conversation, queen: QueenClient, out: Output, names: Callable[[str], str]) -> None:
    """Ask and answer until there is no more input."""
    from rbee.errors import RbeeError
    from rbee.keeper.conversation import CommandError

    out.say(f"Talking with {talk.model}. /help lists commands, Ctrl-D ends.")
    _edit_lines()
    while (text := _read()) is not None:
        if not text.strip():
            continue
        try:
            asked = _obey(talk, text, out, names) if text.startswith("/") else True
        except (CommandError, RbeeError) as error:
            out.say(str(error))
            continue
        if asked is None:
            return
        if not asked:
            continue
        if not text.startswith("/"):
            talk.ask(text)
        try:
            _answer(talk, queen, out)
        except RbeeError as error:
            if not sys.stdin.isatty():
                raise
            out.error([f"Error: {error.message}", *([f"  Next: {error.hint}"] if error.hint else [])])


def _obey(talk: Conversation, line: str, out: Output, names: Callable[[str], str]) -> bool | None:
    """Obey a command; return whether the model is to answer, None for the end."""
    before = talk.model
    reply = talk.obey(line)
    if talk.model != before:
        wanted, talk.model = talk.model, before
        talk.model = names(wanted)
    if reply.file:
        _save(talk, Path(reply.file).expanduser(), out)
    if reply.text:
        out.say(reply.text)
    return None if reply.end else reply.ask


def _answer(talk: Conversation, queen: QueenClient, out: Output) -> None:
    """Print the next answer as it comes; one that is stopped or fails stays as far as it came."""
    from rbee.keeper.conversation import summary

    pieces: list[str] = []
    usage: dict[str, Any] = {}
    began, first_s, stopped = time.monotonic(), None, False
    try:
        with queen.chat(talk.body()) as events:
            for event in events:
                usage = event.data.get("usage") or usage
                for choice in event.data.get("choices", ()):
                    thought, content = choice["delta"].get("reasoning_content"), choice["delta"].get("content")
                    if (thought or content) and first_s is None:
                        first_s = time.monotonic() - began
                    if thought:
                        out.aside(thought)
                    if content:
                        if not pieces:
                            out.end_line()  # of the thoughts
                        out.piece(content)
                        pieces.append(content)
    except KeyboardInterrupt:
        stopped = True
    finally:
        out.end_line()
        talk.answered("".join(pieces))
    out.say("Stopped." if stopped else summary(usage, first_s, time.monotonic() - began))


def _read() -> str | None:
    """Return what the user says, of several lines where these belong together; None at the end."""
    lines: list[str] = []
    quoted = False
    while True:
        try:
            line = _valid(input(("... " if lines or quoted else "> ") if sys.stdin.isatty() else ""))
        except EOFError:
            if sys.stdin.isatty():
                sys.stdout.write("\n")
            return "\n".join(lines) or None
        except KeyboardInterrupt:
            sys.stdout.write("\n")  # what was typed is dropped
            lines, quoted = [], False
            continue
        if line.strip() == '"""':
            if quoted:
                return "\n".join(lines)
            quoted = True
            continue
        line = line.removesuffix("\n")  # of what was pasted
        lines.append(line.removesuffix("\\") if not quoted else line)
        if not quoted and not line.endswith("\\"):
            return "\n".join(lines)


def _valid(line: str) -> str:
    """Return a line with the mark of Unicode in place of bytes that are no UTF-8, which no request can carry."""
    return line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _edit_lines() -> None:
    """Let lines be edited and recalled on a terminal, and pasted together, where Python was built with that."""
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline  # `input` uses it once it is there

            # What is pasted is then one line with line ends in it, until Enter is pressed; Python has it off.
            readline.parse_and_bind("set enable-bracketed-paste on")


def _save(talk: Conversation, path: Path, out: Output) -> None:
    from rbee.config.atomic_write import atomic_write

    atomic_write(path, json.dumps(talk.body()["messages"], indent=2, ensure_ascii=False) + "\n")
    out.say(f"Saved {len(talk.messages)} messages in {path}.")
