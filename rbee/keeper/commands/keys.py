"""`keys add`, `list` and `remove`: who may ask the queen for tokens."""

from __future__ import annotations

import click

from rbee.keeper.ui.lazy import Flags, KeeperGroup

_name = click.argument("name", metavar="NAME")


@click.group(cls=KeeperGroup)
def keys() -> None:
    """Return people and programs keys of their own for the queen.

    Such a key opens inference and nothing else, and its requests get their fair share of the slots. The queen must run.
    """


@keys.command()
@_name
@click.pass_obj
def add(flags: Flags, /, name: str) -> None:
    """Make a key for NAME and print it, this once: the queen keeps only its hash."""
    from rbee.keeper.session import Session

    session = Session(flags)
    made = session.queen().add_key(name)
    if flags.json:
        session.out.data(made)
        return
    session.out.text(str(made["key"]))
    session.out.say(f"{name} sends it as a bearer key to {session.settings.queen_url}; it is not shown again", "🔑")


@keys.command("list")
@click.pass_obj
def list_(flags: Flags, /) -> None:
    """List who has a key."""
    from rbee.keeper.session import Session

    session = Session(flags)
    rows = session.queen().clients()
    if flags.json:
        session.out.data({"clients": rows})
    else:
        session.out.table(["client"], [[row["name"]] for row in rows], empty="Nobody but the operator has a key.")


@keys.command()
@_name
@click.pass_obj
def remove(flags: Flags, /, name: str) -> None:
    """Take the key of NAME back; requests that run are not cut off."""
    from rbee.keeper.session import Session

    session = Session(flags)
    session.queen().remove_key(name)
    if flags.json:
        session.out.data({"removed": name})
    else:
        session.out.text(f"The key of {name} opens nothing any more.")
