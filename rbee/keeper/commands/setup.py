"""`setup`: add, list, install and remove machines; the same operations as in `config` and `hive`."""

from __future__ import annotations

from typing import Any

import click

from rbee.keeper.ui.lazy import Flags, KeeperGroup
from rbee.keeper.ui.options import Selection, check_option, show_command_option

_NAME = click.option("--name", required=True, metavar="NAME", help="The name of the machine, as used with --node.")


@click.group(cls=KeeperGroup)
def setup() -> None:
    """Add, list, install and remove machines (an alias of config and hive)."""


@setup.command("add-node")
@_NAME
@click.option("--ssh-host", "host", required=True, metavar="ADDRESS", help="The address for SSH and for the queen.")
@click.option("--ssh-user", "user", required=True, metavar="USER", help="The SSH user: root, or a user with sudo.")
@click.option("--ssh-key", "key_path", metavar="FILE", help="The private SSH key (mode 600); without it, ssh chooses.")
@click.option("--ssh-port", "port", type=click.IntRange(1, 65535), metavar="PORT", help="The SSH port.")
@click.option("--git-repo", "repo_url", metavar="URL", help="The repository from which the machine clones rbee.")
@click.option("--git-branch", "repo_branch", metavar="NAME", help="The branch, tag or commit to install.")
@click.option("--install-path", metavar="FOLDER", help="Where to install rbee on the machine.")
@click.pass_obj
def add_node(flags: Flags, /, **fields: Any) -> None:
    """Test a machine over SSH and add it to the inventory.

    A name that is in the inventory already is refused.
    """
    from rbee.keeper.commands.config import show_added
    from rbee.keeper.fleet.nodes import put_node
    from rbee.keeper.session import Session

    session = Session(flags, node=fields["name"])
    show_added(session, put_node(session, replace=False, **fields))


@setup.command()
@_NAME
@check_option
@show_command_option
@click.pass_obj
def install(flags: Flags, /, name: str, *, check: bool, show_command: bool) -> None:
    """Install a hive on a machine and start it."""
    from rbee.keeper.fleet.hives import install as run
    from rbee.keeper.session import Session

    run(Session(flags, node=name), Selection(nodes=(name,)), check=check, show_command=show_command)


@setup.command("list-nodes")
@click.pass_obj
def list_nodes(flags: Flags, /) -> None:
    """List the machines of the inventory."""
    from rbee.keeper.commands.config import show_nodes
    from rbee.keeper.session import Session

    show_nodes(Session(flags))


@setup.command("remove-node")
@_NAME
@click.pass_obj
def remove_node(flags: Flags, /, name: str) -> None:
    """Remove a machine from the inventory.

    It is also removed from the queen's registry, and the key of its hive is deleted. The machine itself is left
    unchanged.
    """
    from rbee.keeper.commands.config import remove_and_report
    from rbee.keeper.session import Session

    remove_and_report(Session(flags, node=name), name)
