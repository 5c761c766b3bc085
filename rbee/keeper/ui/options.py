"""Options that several commands share, each defined once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class _Device(click.ParamType[int | None]):
    """A device's number; the bare option gives `auto`, which asks for the one with the most free memory."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Read the number."""
        if value == "auto":
            return None
        if not str(value).isdecimal():
            self.fail(f"{value!r} is not a device number; devices count from 0 (see: rbee-hive detect).", param, ctx)
        return int(value)


def backend_option(command: F) -> F:
    """Add `--backend`."""
    return click.option(
        "--backend",
        type=click.Choice(["cuda", "metal", "cpu"], case_sensitive=False),
        help="Compute with this and nothing else; without it the best that the machine has.",
    )(command)


def device_option(command: F) -> F:
    """Add `--device`."""
    return click.option(
        "--device",
        type=_Device(),
        is_flag=False,
        flag_value="auto",
        default=None,
        help="The backend's device; without it the one with the most free memory.",
    )(command)


def node_option(*, required: bool) -> Callable[[F], F]:
    """Add `--node`."""

    def add(command: F) -> F:
        text = "The node, such as localhost." if required else "Only this node."
        return click.option("--node", required=required, metavar="NAME", help=text)(command)

    return add


def check_option(command: F) -> F:
    """Add `--check`."""
    return click.option("--check", is_flag=True, help="Change nothing; say what would change.")(command)


def show_command_option(command: F) -> F:
    """Add `--show-command`."""
    return click.option(
        "--show-command", is_flag=True, help="Print the plain Ansible line that does the same, and do nothing."
    )(command)


def yes_option(command: F) -> F:
    """Add `--yes`."""
    return click.option("--yes", is_flag=True, help="Do not ask.")(command)


def nodes_options(command: F) -> F:
    """Add `--node` and `--all`, of which exactly one must be given; the command gets `node`, None for all."""

    def chosen(ctx: click.Context, _param: click.Parameter, value: object) -> None:
        if bool(value) == bool(ctx.params.get("node")):
            raise click.UsageError("Name one machine with --node, or all with --all.", ctx)

    every = click.option("--all", is_flag=True, expose_value=False, callback=chosen, help="All of the inventory.")
    # --node is read first, so that --all can look at it.
    one = click.option("--node", is_eager=True, metavar="NAME", help="This machine.")
    return one(every(command))
