"""`config`: show and check settings; add, list and remove machines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rbee.keeper.ui.lazy import Flags, KeeperGroup

if TYPE_CHECKING:
    from rbee.config.file import ConfigFile
    from rbee.keeper.session import Session


@click.group(cls=KeeperGroup)
def config() -> None:
    """Show and check settings; add, list and remove machines."""


@config.command()
@click.pass_obj
def show(flags: Flags, /) -> None:
    """Show the effective settings, each with its source.

    Keys are masked.
    """
    from rbee.config.credentials import api_key_file
    from rbee.keeper.session import Session
    from rbee.observe.redaction import MASK

    session = Session(flags)
    settings = session.settings
    rows: list[tuple[str, Any, str]] = [
        ("home", str(settings.paths.home), "RBEE_HOME" if settings.environ.get("RBEE_HOME") else "default"),
        (
            "config file",
            str(settings.file.path) if settings.file.path else None,
            "first file found" if settings.file.path else "none found",
        ),
    ]
    rows += [(key, value, settings.sources[key]) for key, value in settings.values.items()]
    key_source = "RBEE_API_KEY" if settings.environ.get("RBEE_API_KEY") else settings.keeper.api_key_file
    key_source = key_source or api_key_file(settings.paths)
    rows.append(("api_key", MASK if settings.api_key() else None, str(key_source)))
    for name, reference in settings.aliases.items():
        line = settings.file.line("models", name)
        rows.append((f"models.{name}", reference, f"{settings.file.path}:{line}" if line else "default"))
    rows += _served_rows(settings.file)
    if flags.json:
        session.out.data({key: {"value": value, "source": source} for key, value, source in rows})
        return
    session.out.table(
        ["setting", "value", "source"],
        [[key, "-" if value is None else str(value), source] for key, value, source in rows],
        empty="",
    )


def _served_rows(file: ConfigFile) -> list[tuple[str, Any, str]]:
    """Return the keys of declared models, each with its line, or that of its table."""
    rows = []
    for name, table in file.table("served").items():
        for key, value in table.items() if isinstance(table, dict) else ():
            line = file.line("served", name, key) or file.line("served", name)
            rows.append((f"served.{name}.{key}", value, f"{file.path}:{line}" if line else str(file.path)))
    return rows


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def check(flags: Flags, /, file: Path | None) -> None:
    """Check the config file and the inventory, and tell all that is wrong.

    Without FILE, the config file in use is checked, for rbee-keeper and for the daemons of this machine.
    """
    from rbee.config.file import find, read
    from rbee.errors import ConfigError
    from rbee.keeper.config_check import check_all
    from rbee.keeper.ui.output import Output

    out = Output(flags)
    environ = dict(os.environ)
    if file is not None and not file.is_file():
        raise ConfigError("no such file.", path=str(file))
    found = find(environ) if file is None else read(file)
    checked = check_all(environ, found)
    if found.path is None:
        out.say("There is no config file; the defaults apply. To write a commented one: rbee-keeper install")
    if flags.json:
        path = str(found.path) if found.path else None
        inventory = str(checked.inventory) if checked.inventory else None
        out.data({"file": path, "inventory": inventory, "right": True, "checked": checked.programs})
        return
    if found.path is not None:
        out.text(f"{found.path} is valid (checked by {', '.join(checked.programs)})")
    if checked.inventory is not None:
        out.text(f"{checked.inventory} is valid")


@config.command("set-ssh")
@click.option("--node", "name", required=True, metavar="NAME", help="The name of the machine, as used with --node.")
@click.option("--host", required=True, metavar="ADDRESS", help="The address for SSH and for the queen.")
@click.option("--user", required=True, metavar="USER", help="The SSH user: root, or a user with sudo.")
@click.option("--key", "key_path", metavar="FILE", help="The private SSH key (mode 600); without it, ssh chooses.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="PORT", help="The SSH port.")
@click.option("--git-repo", "repo_url", metavar="URL", help="The repository from which the machine clones rbee.")
@click.option("--git-branch", "repo_branch", metavar="NAME", help="The branch, tag or commit to install.")
@click.option("--install-path", metavar="FOLDER", help="Where to install rbee on the machine.")
@click.pass_obj
def set_ssh(flags: Flags, /, **fields: Any) -> None:
    """Test a machine over SSH and add it to the inventory.

    A machine that is in the inventory already is updated.
    """
    from rbee.keeper.fleet.nodes import put_node
    from rbee.keeper.session import Session

    session = Session(flags, node=fields["name"])
    show_added(session, put_node(session, replace=True, **fields))


@config.command("list-nodes")
@click.pass_obj
def list_nodes(flags: Flags, /) -> None:
    """List the machines of the inventory.

    Without a running queen, their last known state is shown.
    """
    from rbee.keeper.session import Session

    show_nodes(Session(flags))


@config.command("remove-node")
@click.option("--node", required=True, metavar="NAME", help="The name of the machine.")
@click.pass_obj
def remove_node(flags: Flags, /, node: str) -> None:
    """Remove a machine from the inventory.

    It is also removed from the queen's registry, and the key of its hive is deleted. The machine itself is left
    unchanged.
    """
    from rbee.keeper.session import Session

    remove_and_report(Session(flags, node=node), node)


def show_added(session: Session, row: dict[str, Any]) -> None:
    """Print a machine that was added or changed."""
    out = session.out
    if out.json:
        out.data(row)
        return
    verb = "Updated" if row["updated"] else "Added"
    out.text(f"{verb} {row['node_name']}: {row['ssh_user']}@{row['ssh_host']}, {_backends(row)}")
    out.say(f"Next: rbee-keeper hive install --node {row['node_name']}")


def show_nodes(session: Session) -> None:
    """Print all machines."""
    from time import time

    from rbee.keeper.fleet.nodes import list_rows
    from rbee.keeper.ui.output import ago_text

    rows = list_rows(session)
    if session.out.json:
        session.out.data({"beehives": rows})
        return
    now = time()
    session.out.table(
        ["node", "host", "status", "last connection", "install path", "backends"],
        [
            [
                str(row["node_name"]),
                str(row["ssh_host"]),
                str(row["status"]) + (f" ({row['last_error']})" if row.get("last_error") else ""),
                ago_text(row.get("last_connected_unix"), now),
                str(row.get("install_path") or "-"),
                _backends(row),
            ]
            for row in rows
        ],
        empty="The inventory has no machines (localhost needs no entry). To add one: rbee-keeper config set-ssh",
    )


def remove_and_report(session: Session, node: str) -> None:
    """Remove a machine and print that."""
    from rbee.keeper.fleet.nodes import remove_node as remove

    remove(session, node)
    if session.out.json:
        session.out.data({"removed": node})
    else:
        session.out.text(f"Removed {node}")


def _backends(row: dict[str, Any]) -> str:
    counts = row.get("devices") or {}
    return ", ".join(f"{name} x{counts.get(name, '?')}" for name in row.get("backends") or []) or "-"
