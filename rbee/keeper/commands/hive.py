"""`hive`: install, upgrade, start, stop and remove hives on machines, and show their state."""

from __future__ import annotations

from typing import Any

import click

from rbee.keeper.ui.lazy import Flags, KeeperGroup
from rbee.keeper.ui.options import Selection, check_option, keys_option, nodes_options, show_command_option, yes_option


@click.group(cls=KeeperGroup)
def hive() -> None:
    """Install, upgrade, start, stop and remove hives on machines, through Ansible."""


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
