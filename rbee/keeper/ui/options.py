"""Define the options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

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


def keys_option(command: F) -> F:
    """Add `--keys`."""
    return click.option(
        "--keys",
        type=click.Choice(["adopt", "replace"]),
        help="Where a machine has another operator's key: use it here too, or give it this operator's.",
    )(command)


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


class Selection(NamedTuple):
    """The machines that a command is for: these nodes, those of these groups, or all of the inventory."""

    nodes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def single(self) -> str | None:
        """The only node that was named; None for several, a group or all."""
        return self.nodes[0] if len(self.nodes) == 1 and not self.groups else None

    @property
    def options(self) -> str:
        """The options that select the same machines again."""
        named = {"--node": self.nodes, "--group": self.groups}
        return " ".join(f"{option} {','.join(names)}" for option, names in named.items() if names) or "--all"


def _names(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for part in value for name in part.split(",")))
    if "" in names:
        raise click.BadParameter("names are separated by single commas: h1,h2")
    return names


def nodes_options(command: F) -> F:
    """Add `--node`, `--group` and `--all`, of which --all stands alone; the command gets a `selection`."""

    @functools.wraps(command)
    def selecting(*args: Any, node: tuple[str, ...], group: tuple[str, ...], every: bool, **options: Any) -> Any:
        if every == bool(node or group):
            raise click.UsageError(
                "Give either --node NAME[,NAME], --group NAME or --all.", click.get_current_context()
            )
        return command(*args, selection=Selection(node, group), **options)

    options = (
        click.option("--node", multiple=True, callback=_names, metavar="NAMES", help="These machines: h1, or h1,h2."),
        click.option("--group", multiple=True, callback=_names, metavar="NAMES", help="The hives of these groups."),
        click.option("--all", "every", is_flag=True, help="All machines of the inventory."),
    )
    wrapped: Any = selecting
    for option in reversed(options):
        wrapped = option(wrapped)
    return cast("F", wrapped)
