"""Define the options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class _Device(click.ParamType[int | None]):
    """A device number; the option without a value means `auto`, the device with the most free memory."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Parse the number; `auto` becomes None."""
        if value == "auto":
            return None
        if not str(value).isdecimal():
            self.fail(
                f"{value!r} is not a device number; the first device is 0 (rbee-hive detect lists them).", param, ctx
            )
        return int(value)


def backend_option(command: F) -> F:
    """Add `--backend`."""
    return click.option(
        "--backend",
        type=click.Choice(["cuda", "metal", "cpu"], case_sensitive=False),
        help="Use only this backend; without it, the best one of the machine.",
    )(command)


def device_option(command: F) -> F:
    """Add `--device`."""
    return click.option(
        "--device",
        type=_Device(),
        is_flag=False,
        flag_value="auto",
        default=None,
        help="Use this device of the backend; without it, the one with the most free memory.",
    )(command)


def node_option(*, required: bool) -> Callable[[F], F]:
    """Add `--node`."""

    def add(command: F) -> F:
        text = "The name of the node, such as localhost." if required else "Show only this node."
        return click.option("--node", required=required, metavar="NAME", help=text)(command)

    return add


def check_option(command: F) -> F:
    """Add `--check`."""
    return click.option("--check", is_flag=True, help="Change nothing; print what would change.")(command)


def show_command_option(command: F) -> F:
    """Add `--show-command`."""
    return click.option("--show-command", is_flag=True, help="Run nothing; print the equivalent Ansible command.")(
        command
    )


def yes_option(command: F) -> F:
    """Add `--yes`."""
    return click.option("--yes", is_flag=True, help="Do not ask for confirmation.")(command)


def nodes_options(command: F) -> F:
    """Add `--node` and `--all`, of which exactly one must be given; the command gets `node`, None for all."""

    def chosen(ctx: click.Context, _param: click.Parameter, value: object) -> None:
        if bool(value) == bool(ctx.params.get("node")):
            raise click.UsageError("Give either --node NAME or --all.", ctx)

    every = click.option(
        "--all", is_flag=True, expose_value=False, callback=chosen, help="All machines of the inventory."
    )
    # --node is eager, so that the callback of --all can read it.
    one = click.option("--node", is_eager=True, metavar="NAME", help="This machine of the inventory.")
    return one(every(command))
