"""`setup`: add, list, install and remove machines; the same operations as `config` and `hive`, by longer names."""

from __future__ import annotations

from typing import Any

import click

from rbee.keeper.ui.lazy import Flags, KeeperGroup
from rbee.keeper.ui.options import check_option, show_command_option

_NAME = click.option("--name", required=True, metavar="NAME", help="The name of the machine, which --node means.")


@click.group(cls=KeeperGroup)
def setup() -> None:
    """Add, list, install and remove machines."""


@setup.command("add-node")
@_NAME
@click.option("--ssh-host", "host", required=True, metavar="ADDRESS", help="Where SSH and the queen find it.")
@click.option("--ssh-user", "user", required=True, metavar="USER", help="Who logs in; root, or one whom sudo lets.")
@click.option("--ssh-key", "key_path", metavar="FILE", help="The private key; without it ssh chooses.")
@click.option("--ssh-port", "port", type=click.IntRange(1, 65535), help="The port of SSH.")
@click.option("--git-repo", "repo_url", metavar="URL", help="Where the machine clones rbee from.")
@click.option("--git-branch", "repo_branch", metavar="NAME", help="Which branch, tag or commit of it.")
@click.option("--install-path", metavar="FOLDER", help="Where rbee goes on the machine.")
@click.pass_obj
def add_node(flags: Flags, /, **fields: Any) -> None:
    """Test a new machine over SSH and write it into the inventory; one that is there already is refused."""
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
    """Install rbee on a machine of the inventory: clone, build, service, and the proof that it serves."""
    from rbee.keeper.fleet.hives import install as run
    from rbee.keeper.session import Session

    run(Session(flags, node=name), name, check=check, show_command=show_command)


@setup.command("list-nodes")
@click.pass_obj
def list_nodes(flags: Flags, /) -> None:
    """List the machines with status, last connection, install path and backends."""
    from rbee.keeper.commands.config import show_nodes
    from rbee.keeper.session import Session

    show_nodes(Session(flags))


@setup.command("remove-node")
@_NAME
@click.pass_obj
def remove_node(flags: Flags, /, name: str) -> None:
    """Forget a machine: inventory, registry and key; nothing is changed on the machine itself."""
    from rbee.keeper.commands.config import forget
    from rbee.keeper.session import Session

    forget(Session(flags, node=name), name)
