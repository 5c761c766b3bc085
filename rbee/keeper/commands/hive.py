"""`hive`: install, upgrade, start, stop and remove hives on machines, show their state, yield their devices."""

from __future__ import annotations

from typing import Any

import click

from rbee.keeper.ui.lazy import Flags, KeeperGroup
from rbee.keeper.ui.options import (
    SPAN,
    Selection,
    check_option,
    each_node,
    keys_option,
    nodes_options,
    show_command_option,
    yes_option,
)

_backend_option = click.option(
    "--backend",
    type=click.Choice(["cuda", "metal", "cpu"], case_sensitive=False),
    help="Only devices of this backend.",
)
_device_option = click.option(
    "--device",
    type=click.IntRange(min=0),
    metavar="NUMBER",
    help="Only this device of the backend, or of the best one; without it, every device.",
)


@click.group(cls=KeeperGroup)
def hive() -> None:
    """Install, upgrade, start, stop and remove hives on machines, through Ansible; yield their devices."""


@hive.command()
@nodes_options
@keys_option
@check_option
@show_command_option
@click.pass_obj
def install(flags: Flags, /, selection: Selection, **how: Any) -> None:
    """Install hives on machines and start them.

    Clones and builds rbee on each machine, installs the service and checks that it serves. Running it again changes
    nothing.
    """
    from rbee.keeper.fleet import hives
    from rbee.keeper.session import Session

    hives.install(Session(flags, node=selection.single), selection, **how)


@hive.command()
@nodes_options
@click.option("--keep-models", is_flag=True, help="Keep the models and their catalog.")
@yes_option
@check_option
@show_command_option
@click.pass_obj
def uninstall(flags: Flags, /, selection: Selection, **how: Any) -> None:
    """Remove hives from machines.

    Removes service, programs, user, logs and models, after asking for confirmation.
    """
    from rbee.keeper.fleet import hives
    from rbee.keeper.session import Session

    hives.uninstall(Session(flags, node=selection.single), selection, **how)


@hive.command()
@nodes_options
@click.option(
    "--branch", metavar="NAME", help="The branch, tag or commit to install; without it, that of the inventory."
)
@check_option
@show_command_option
@click.pass_obj
def upgrade(flags: Flags, /, selection: Selection, **how: Any) -> None:
    """Upgrade hives to a newer release.

    One machine is upgraded first, then the others. A machine whose hive does not serve afterwards is rolled back.
    """
    from rbee.keeper.fleet import hives
    from rbee.keeper.session import Session

    hives.upgrade(Session(flags, node=selection.single), selection, **how)


@hive.command()
@nodes_options
@check_option
@show_command_option
@click.pass_obj
def start(flags: Flags, /, selection: Selection, **how: Any) -> None:
    """Start installed hives and wait until they serve."""
    from rbee.keeper.fleet import hives
    from rbee.keeper.session import Session

    hives.start(Session(flags, node=selection.single), selection, **how)


@hive.command()
@nodes_options
@check_option
@show_command_option
@click.pass_obj
def stop(flags: Flags, /, selection: Selection, **how: Any) -> None:
    """Stop hives and their workers after their running requests."""
    from rbee.keeper.fleet import hives
    from rbee.keeper.session import Session

    hives.stop(Session(flags, node=selection.single), selection, **how)


@hive.command()
@nodes_options
@check_option
@show_command_option
@click.pass_obj
def drain(flags: Flags, /, selection: Selection, **how: Any) -> None:
    """Take hives out of service, until `hive start`.

    They accept no new requests, finish the running ones and end; the queen places on the others meanwhile.
    """
    from rbee.keeper.fleet import hives
    from rbee.keeper.session import Session

    hives.drain(Session(flags, node=selection.single), selection, **how)


@hive.command()
@nodes_options
@click.pass_obj
def status(flags: Flags, /, selection: Selection) -> None:
    """Show the state of hives, their connection to the queen and their workers."""
    from rbee.keeper.fleet import hives
    from rbee.keeper.session import Session

    hives.status(Session(flags, node=selection.single), selection)


@hive.command("yield")
@each_node(required=True, text="The node, such as localhost, or several: h1,h2.")
@_backend_option
@_device_option
@click.option(
    "--for", "for_s", type=SPAN, metavar="TIME", help="For so long, such as 90m or 2h, unless resumed before."
)
@click.option(
    "--drain",
    "drain_s",
    type=SPAN,
    metavar="TIME",
    help="How long running requests may take to end, such as 10s; without it, as long as with `worker stop`.",
)
@click.pass_obj
def yield_(flags: Flags, /, node: str, **wanted: Any) -> None:
    """Empty devices for another program, such as a game.

    Their workers stop after their running requests, and none is started there until `hive resume`, or until the time
    is over. Other requests go elsewhere or wait. For example, the first GPU for two hours:

        rbee-keeper hive yield --node h1 --device 0 --for 2h
    """
    from rbee.keeper import devices
    from rbee.keeper.session import Session

    devices.yield_devices(Session(flags, node=node), node, **wanted)


@hive.command()
@each_node(required=True, text="The node, such as localhost, or several: h1,h2.")
@_backend_option
@_device_option
@click.pass_obj
def resume(flags: Flags, /, node: str, **wanted: Any) -> None:
    """Use devices again that were yielded."""
    from rbee.keeper import devices
    from rbee.keeper.session import Session

    devices.resume_devices(Session(flags, node=node), node, **wanted)
