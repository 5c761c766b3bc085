"""`hive`: install, upgrade, start, stop and remove hives on machines, and see how they are."""

from __future__ import annotations

from typing import Any

import click

from rbee.keeper.ui.lazy import Flags, KeeperGroup
from rbee.keeper.ui.options import check_option, nodes_options, show_command_option, yes_option


@click.group(cls=KeeperGroup)
def hive() -> None:
    """Install, upgrade, start, stop and remove hives on machines, through Ansible."""


@hive.command()
@nodes_options
@check_option
@show_command_option
@click.pass_obj
def install(flags: Flags, /, node: str | None, **how: Any) -> None:
    """Clone, build, install the service, and prove that it serves; a second time changes nothing."""
    from rbee.keeper.fleet import hives
    from rbee.keeper.session import Session

    hives.install(Session(flags, node=node), node, **how)


@hive.command()
@nodes_options
@click.option("--keep-models", is_flag=True, help="Leave the models and their catalogue.")
@yes_option
@check_option
@show_command_option
@click.pass_obj
def uninstall(flags: Flags, /, node: str | None, **how: Any) -> None:
    """Take service, programs, user, logs and models off the machines; asks first."""
    from rbee.keeper.fleet import hives
    from rbee.keeper.session import Session

    hives.uninstall(Session(flags, node=node), node, **how)


@hive.command()
@nodes_options
@click.option("--branch", metavar="NAME", help="The branch, tag or commit to go to; without it that of the inventory.")
@check_option
@show_command_option
@click.pass_obj
def upgrade(flags: Flags, /, node: str | None, **how: Any) -> None:
    """Go to a newer release, one machine first; one that does not serve goes back by itself."""
    from rbee.keeper.fleet import hives
    from rbee.keeper.session import Session

    hives.upgrade(Session(flags, node=node), node, **how)


@hive.command()
@nodes_options
@check_option
@show_command_option
@click.pass_obj
def start(flags: Flags, /, node: str | None, **how: Any) -> None:
    """Start installed hives and wait until they serve."""
    from rbee.keeper.fleet import hives
    from rbee.keeper.session import Session

    hives.start(Session(flags, node=node), node, **how)


@hive.command()
@nodes_options
@check_option
@show_command_option
@click.pass_obj
def stop(flags: Flags, /, node: str | None, **how: Any) -> None:
    """Stop hives after their running requests; their workers end with them."""
    from rbee.keeper.fleet import hives
    from rbee.keeper.session import Session

    hives.stop(Session(flags, node=node), node, **how)


@hive.command()
@nodes_options
@click.pass_obj
def status(flags: Flags, /, node: str | None) -> None:
    """Say how the hives are: the machine's own word, the queen's view, and the workers."""
    from rbee.keeper.fleet import hives
    from rbee.keeper.session import Session

    hives.status(Session(flags, node=node), node)
