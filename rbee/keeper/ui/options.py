"""Define the options that several commands share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar, cast

import click

from rbee.keeper.ui.lazy import Flags

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


class _Span(click.ParamType[int]):
    """A span of time such as 90s, 5m, 2h or 1d, in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse the span."""
        from rbee.keeper.ui.times import parse_span

        seconds = parse_span(str(value))
        if seconds is None:
            self.fail(f"{value!r} is not a time; write one such as 90s, 5m, 2h or 1d.", param, ctx)
        return seconds


SPAN: Final = _Span()


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


def several_nodes(*, text: str) -> Callable[[F], F]:
    """Add `--node` and `--group`; the command is called once, with the names as `nodes`, none where none was given.

    Args:
        text: the help of `--node`.
    """

    def add(command: F) -> F:
        @functools.wraps(command)
        def selecting(*args: Any, node: tuple[str, ...], group: tuple[str, ...], **options: Any) -> Any:
            return command(*args, nodes=_expanded(node, group), **options)

        return cast("F", _node_options(selecting, text))

    return add


def _node_options(command: Callable[..., Any], text: str) -> Any:
    groups = click.option("--group", multiple=True, callback=_names, metavar="NAMES", help="The hives of groups.")
    return click.option("--node", multiple=True, callback=_names, metavar="NAMES", help=text)(groups(command))


def each_node(*, text: str, default: str | None = None, required: bool = False, endless: str = "") -> Callable[[F], F]:
    """Add `--node` and `--group`; the command runs for one node after the other, and gets its name as `node`.

    Where one of several fails, it is reported and the others are done all the same; the exit code is then 1.

    Args:
        text: the help of `--node`.
        default: the node where none is named; None calls the command once, without one.
        required: refuse a command without a node.
        endless: an option with which the command does not end by itself, so that one node is all it can be for.
    """

    def add(command: F) -> F:
        @functools.wraps(command)
        def repeating(*args: Any, node: tuple[str, ...], group: tuple[str, ...], **options: Any) -> Any:
            if required and not node and not group:
                raise click.UsageError("Give --node NAME[,NAME] or --group NAME.", click.get_current_context())
            names = _expanded(node, group)
            if len(names) > 1 and options.get(endless):
                raise click.UsageError(f"--{endless} takes one node at a time.", click.get_current_context())
            if len(names) <= 1:
                return command(*args, node=names[0] if names else default, **options)
            return _repeat(functools.partial(command, *args, **options), names)

        return cast("F", _node_options(repeating, text))

    return add


def where_options(command: F) -> F:
    """Add `--node` and `--group` that say where something may run; the command gets the names as `nodes`."""

    @functools.wraps(command)
    def placed(*args: Any, node: tuple[str, ...], group: tuple[str, ...], **options: Any) -> Any:
        return command(*args, nodes=_expanded(node, group), **options)

    nodes = "Only on this node, or these: h1,h2."
    groups = "Only on the hives of these groups of the inventory, as they are now."
    add_groups = click.option("--group", multiple=True, callback=_names, metavar="NAMES", help=groups)
    add_nodes = click.option("--node", multiple=True, callback=_names, metavar="NAMES", help=nodes)
    return cast("F", add_nodes(add_groups(placed)))


def _expanded(nodes: tuple[str, ...], groups: tuple[str, ...]) -> list[str]:
    """Return the names, with the hives of groups after them."""
    if not groups:
        return list(nodes)
    from rbee.keeper.fleet.inventory import select_nodes
    from rbee.keeper.settings import load

    members = select_nodes(load(dict(os.environ)), Selection(groups=groups))
    return list(dict.fromkeys([*nodes, *(node.name for node in members)]))


def _repeat(command: Callable[..., Any], names: list[str]) -> None:
    """Run a command for each of several nodes. Raises AlreadyReportedError where one failed."""
    from rbee.errors import RbeeError
    from rbee.keeper.ui.errors import AlreadyReportedError, report
    from rbee.keeper.ui.output import Output

    flags: Flags = click.get_current_context().obj
    failed = False
    for name in names:
        if not flags.json:
            Output(flags).text(f"{name}:")
        try:
            command(node=name)
        except (RbeeError, AlreadyReportedError) as error:
            report(error, flags)
            failed = True
    if failed:
        raise AlreadyReportedError


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
