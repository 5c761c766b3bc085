"""Load commands only when they are used, and define the flags that every command takes.

The short help of a lazy command stands in the table of its group, so that `--help` loads no command.
"""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

import click


class Flags:
    """How a command prints: the flags that every command takes, before or after its name.

    `node` is the node that the command is about, for the hint of an error.
    """

    def __init__(self) -> None:
        self.json = False
        self.quiet = False
        self.debug = False
        self.node: str | None = None


class Entry(NamedTuple):
    """A command that is not loaded yet: `module:attribute`, and its line in the list of commands."""

    target: str
    help: str


def _note(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value and param.name is not None:
        setattr(ctx.ensure_object(Flags), param.name, True)


def flag_options() -> list[click.Parameter]:
    """Build the options `--json`, `--quiet` and `--debug`."""
    texts = {
        "json": 'Print JSON on stdout; an error as {"error": ...}.',
        "quiet": "Print no progress messages, only warnings and errors.",
        "debug": "Print the traceback of an error.",
    }
    return [
        click.Option([f"--{name}"], is_flag=True, expose_value=False, is_eager=True, callback=_note, help=text)
        for name, text in texts.items()
    ]


class KeeperCommand(click.Command):
    """A command with the flags that every command takes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(flag_options())


class KeeperGroup(click.Group):
    """A group whose commands take the common flags, and which suggests a name for a mistyped one."""

    command_class = KeeperCommand
    group_class = type

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """List the names in the order of their definition."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or suggest one with a similar name."""
        name = args[0]
        known = self.list_commands(ctx)
        if name not in known and not name.startswith("-"):
            close = difflib.get_close_matches(name, known, n=1)
            advice = f"Did you mean {close[0]!r}?" if close else f"Commands: {', '.join(known)}."
            raise click.UsageError(f"No such command {name!r}. {advice}", ctx)
        return super().resolve_command(ctx, args)


class LazyGroup(KeeperGroup):
    """A group that imports a command when it is called; `entries` maps its name to where it is."""

    def __init__(self, *args: Any, entries: dict[str, Entry], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """List the names in the order of the table."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Load the command of that name."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        import importlib

        module, _, attribute = entry.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands with the help of the table, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.entries.items()])
