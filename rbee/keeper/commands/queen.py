"""`queen`: install, upgrade, start, stop and remove the queen on a machine of the inventory, and show its state."""

from __future__ import annotations

from typing import Any

import click

from rbee.keeper.ui.lazy import Flags, KeeperGroup
from rbee.keeper.ui.options import check_option, keys_option, show_command_option, yes_option

_node = click.option(
    "--node", metavar="NAME", help="Its machine; without it, the one in the group rbee_queen of the inventory."
)


@click.group(cls=KeeperGroup)
def queen() -> None:
    """Install, upgrade, start, stop and remove the queen on a machine of the inventory, through Ansible.

    A queen on this machine, without an installation, is started by `daemon start`.
    """


@queen.command()
@_node
@keys_option
@check_option
@show_command_option
@click.pass_obj
def install(flags: Flags, /, node: str | None, **how: Any) -> None:
    """Install the queen as a service and start it.

    With --node, the machine is put into the group rbee_queen of the inventory first. Hives that are installed already
    are registered with it. Running it again changes nothing.
    """
    from rbee.keeper.fleet import queens
    from rbee.keeper.session import Session

    queens.install(Session(flags, node=node), node, **how)


@queen.command()
@_node
@yes_option
@check_option
@show_command_option
@click.pass_obj
def uninstall(flags: Flags, /, node: str | None, **how: Any) -> None:
    """Remove the queen from its machine.

    Removes service, registry, keys of clients and their usage, and programs and user where no hive needs them, after
    asking for confirmation. Hives are left, also that of the same machine.
    """
    from rbee.keeper.fleet import queens
    from rbee.keeper.session import Session

    queens.uninstall(Session(flags, node=node), node, **how)


@queen.command()
@_node
@click.option(
    "--branch", metavar="NAME", help="The branch, tag or commit to install; without it, that of the inventory."
)
@check_option
@show_command_option
@click.pass_obj
def upgrade(flags: Flags, /, node: str | None, **how: Any) -> None:
    """Upgrade the queen to a newer release.

    Requests go on meanwhile: its port stays open and its hives keep their workers. If it does not serve afterwards, it
    is rolled back.
    """
    from rbee.keeper.fleet import queens
    from rbee.keeper.session import Session

    queens.upgrade(Session(flags, node=node), node, **how)


@queen.command()
@_node
@check_option
@show_command_option
@click.pass_obj
def start(flags: Flags, /, node: str | None, **how: Any) -> None:
    """Start the installed queen and wait until it serves."""
    from rbee.keeper.fleet import queens
    from rbee.keeper.session import Session

    queens.start(Session(flags, node=node), node, **how)


@queen.command()
@_node
@check_option
@show_command_option
@click.pass_obj
def stop(flags: Flags, /, node: str | None, **how: Any) -> None:
    """Stop the queen after its running requests; hives go on."""
    from rbee.keeper.fleet import queens
    from rbee.keeper.session import Session

    queens.stop(Session(flags, node=node), node, **how)


@queen.command()
@_node
@click.pass_obj
def status(flags: Flags, /, node: str | None) -> None:
    """Show whether the queen serves, there and from here."""
    from rbee.keeper.fleet import queens
    from rbee.keeper.session import Session

    queens.status(Session(flags, node=node), node)
