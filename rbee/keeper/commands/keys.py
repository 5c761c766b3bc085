"""`keys add`, `list` and `remove`: the API keys of the queen's clients."""

from __future__ import annotations

import click

from rbee.keeper.ui.lazy import Flags, KeeperGroup

_name = click.argument("name", metavar="NAME")


@click.group(cls=KeeperGroup)
def keys() -> None:
    """Manage the API keys of clients.

    A client's key allows inference and nothing else. Clients share the slots fairly. The queen must run.
    """


@keys.command()
@_name
@click.pass_obj
def add(flags: Flags, /, name: str) -> None:
    """Create a key for the client NAME and print it.

    The key is shown only once: the queen stores its hash.
    """
    from rbee.keeper.session import Session

    session = Session(flags)
    created = session.queen().add_key(name)
    if flags.json:
        session.out.data(created)
        return
    session.out.text(str(created["key"]))
    session.out.say(
        f"{name} must send it to {session.settings.queen_url} as 'Authorization: Bearer KEY'; it is not shown again",
        "🔑",
    )


@keys.command("list")
@click.pass_obj
def list_(flags: Flags, /) -> None:
    """List the clients that have a key."""
    from rbee.keeper.session import Session

    session = Session(flags)
    rows = session.queen().clients()
    if flags.json:
        session.out.data({"clients": rows})
    else:
        session.out.table(
            ["client"],
            [[row["name"]] for row in rows],
            empty="No client has a key. To create one: rbee-keeper keys add NAME",
        )


@keys.command()
@_name
@click.pass_obj
def remove(flags: Flags, /, name: str) -> None:
    """Revoke the key of the client NAME.

    Running requests are not interrupted.
    """
    from rbee.keeper.session import Session

    session = Session(flags)
    session.queen().remove_key(name)
    if flags.json:
        session.out.data({"removed": name})
    else:
        session.out.text(f"Revoked the key of {name}")
