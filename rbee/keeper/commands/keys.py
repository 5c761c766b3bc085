"""`keys add`, `set`, `list` and `remove`: the API keys of the queen's clients, and what each allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from rbee.keeper.ui.lazy import Flags, KeeperGroup
from rbee.keeper.ui.times import date_text, parse_expiry

F = TypeVar("F", bound=Callable[..., Any])
_NONE: Final = ("none", "never", "any")


def _checked_name(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    import re

    from rbee.contracts.patterns import NAME, words

    if not re.match(NAME, value):
        raise click.BadParameter(f"{value!r} cannot be the name of a client: use {words(NAME)}.")
    return value


_name = click.argument("name", metavar="NAME", callback=_checked_name)


def _number(low: int, high: int) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    def parse(ctx: click.Context, param: click.Parameter, value: str | None) -> Any:
        if value is None or value.lower() in _NONE:
            return value and "none"
        kind: Any = click.IntRange(low, high)
        return kind.convert(value, param, ctx)

    return parse


def _expiry(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:
    if value is None or value.lower() in _NONE:
        return value and "none"
    import time

    parsed = parse_expiry(value, time.time())
    if parsed is None:
        raise click.BadParameter(
            f"{value!r} is neither a time from now (12h, 30d, 8w), nor a date (2027-01-31), nor 'never'."
        )
    return parsed


_OPTIONS: Final = (
    click.option(
        "--may",
        "rights",
        multiple=True,
        callback=lambda _ctx, _param, value: tuple(dict.fromkeys(value)),
        type=click.Choice(["infer", "operate"]),
        help="What the key may do: 'infer' (the default) runs inference; 'operate' does all that you may: name model "
        "references, nodes and devices, start and stop workers, read logs, manage keys. Give it twice for both.",
    ),
    click.option(
        "--model",
        "models",
        multiple=True,
        metavar="MODEL",
        help="A model that it may use, as GET /v1/models lists it; may be given several times. Without it: all that "
        "are aliases, in a catalog, or served. 'any' removes the list.",
    ),
    click.option(
        "--priority",
        "max_priority",
        type=click.IntRange(-10, 10),
        metavar="N",
        help="The highest priority that its requests may ask for, -10 to 10; 0 if not given.",
    ),
    click.option(
        "--tasks",
        "max_tasks",
        callback=_number(1, 10**12),
        metavar="N",
        help="How many requests it may have at once; 'none' for no limit.",
    ),
    click.option(
        "--tokens-per-day",
        callback=_number(1, 10**12),
        metavar="N",
        help="How many tokens it may use from midnight to midnight (UTC), prompts and answers together; 'none' for no "
        "limit.",
    ),
    click.option(
        "--expires",
        "expires_unix",
        callback=_expiry,
        metavar="WHEN",
        help="When it ends: a time from now (12h, 30d, 8w), a date (2027-01-31, at its beginning, UTC), or 'never'.",
    ),
)


def _options(command: F) -> F:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.group(cls=KeeperGroup)
def keys() -> None:
    """Manage the API keys of clients.

    A client's key allows what you say: by default inference with the models that are there, and nothing else.
    Clients share the slots fairly. The queen must run.
    """


@keys.command()
@_name
@_options
@click.pass_obj
def add(flags: Flags, /, name: str, **options: Any) -> None:
    """Create a key for the client NAME and print it.

    The key is shown only once: the queen stores its hash. For example, a key for a guest:

        rbee-keeper keys add guest --model demo --tasks 2 --tokens-per-day 100000 --expires 30d
    """
    from rbee.keeper.session import Session

    session = Session(flags)
    created = session.queen().add_key({"name": name, **_fields(options)})
    if flags.json:
        session.out.data(created)
        return
    session.out.text(str(created["key"]))
    session.out.say(
        f"{name} must send it to {session.settings.queen_url} as 'Authorization: Bearer KEY'; it is not shown again",
        "🔑",
    )


@keys.command("set")
@_name
@_options
@click.pass_obj
def set_(flags: Flags, /, name: str, **options: Any) -> None:
    """Change what the key of the client NAME allows.

    Only what you give is changed, and it counts from the next request on; the key itself stays the same. For example:

        rbee-keeper keys set guest --priority 5 --expires never
    """
    from rbee.keeper.session import Session

    fields = _fields(options)
    if not fields:
        raise click.UsageError("Say what to change, for example --tasks 2; see: rbee-keeper keys set --help")
    session = Session(flags)
    changed = session.queen().change_key({"name": name, **fields})
    if flags.json:
        session.out.data(changed)
    else:
        _print(session, [changed])


@keys.command("list")
@click.pass_obj
def list_(flags: Flags, /) -> None:
    """List the keys: what each may do, its limits, tokens used today, last use and expiry. Times are UTC."""
    from rbee.keeper.session import Session

    session = Session(flags)
    rows = session.queen().keys()
    if flags.json:
        session.out.data({"keys": rows})
    else:
        _print(session, rows)


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


def _fields(options: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of the request: those that were given, null for a limit that is removed."""
    given = {name: value for name, value in options.items() if value is not None and value != ()}
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
    return {name: None if value in ("none", ["any"]) else value for name, value in fields.items()}


def _print(session: Any, rows: list[dict[str, Any]]) -> None:
    session.out.table(
        ["client", "may", "models", "priority", "tasks", "tokens today", "last use", "expires"],
        [
            [
                row["name"],
                ", ".join(row["rights"]),
                ", ".join(row["models"] or ()) or "any",
                f"<= {row['max_priority']}",
                "any" if row["max_tasks"] is None else f"<= {row['max_tasks']}",
                str(row["tokens_today"]) + ("" if row["tokens_per_day"] is None else f" of {row['tokens_per_day']}"),
                date_text(row["last_used_unix"], none="never"),
                date_text(row["expires_unix"], none="never"),
            ]
            for row in rows
        ],
        empty="No client has a key. To create one: rbee-keeper keys add NAME",
    )
