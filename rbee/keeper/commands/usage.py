"""`usage`: what clients have used, by day, client and model."""

from __future__ import annotations

from typing import Any, Final

import click

from rbee.keeper.ui.lazy import Flags, KeeperCommand
from rbee.keeper.ui.times import parse_day

_DIMENSIONS: Final = ("day", "client", "model")
_SINCE: Final = "30d"


def _day(_ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    import time

    day = parse_day(value, time.time())
    if day is None:
        raise click.BadParameter(f"{value!r} is neither a date (2026-11-28) nor days or weeks back from now (30d, 8w).")
    return day


@click.command(cls=KeeperCommand)
@click.option("--client", metavar="NAME", help="Only what this client has used; 'operator' is the queen's own key.")
@click.option("--model", metavar="MODEL", help="Only what was used of this model, by the name that clients gave it.")
@click.option(
    "--since",
    metavar="DAY",
    callback=_day,
    default=_SINCE,
    show_default=True,
    help="The first day (UTC): a date (2026-11-28), or days or weeks back from now (30d, 8w).",
)
@click.option("--until", metavar="DAY", callback=_day, help="The last day, in the same way; today if not given.")
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(_DIMENSIONS),
    callback=lambda _ctx, _param, value: tuple(dict.fromkeys(value)),
    help="What to tell apart; may be given several times. Without it: days, clients and models.",
)
@click.pass_obj
def usage(flags: Flags, /, by: tuple[str, ...], **options: str | None) -> None:
    """Show what clients have used: requests, tokens, time of devices, and energy where devices tell.

    Cached tokens are some of those of prompts. The time of a batch is shared by the requests in it, so that requests
    that ran at once do not add up to more than has passed. Days are those of UTC. The queen must run. For example,
    what each client used this year:

        rbee-keeper usage --by client --since 2026-01-01
    """
    from rbee.keeper.session import Session

    if options["until"] is not None and str(options["since"]) > options["until"]:
        raise click.UsageError(f"--since ({options['since']}) is after --until ({options['until']}).")
    session = Session(flags)
    query = {name: value for name, value in options.items() if value is not None}
    report = session.queen().usage({**query, "by": list(by or _DIMENSIONS)})
    if flags.json:
        session.out.data(report)
        return
    told = [name for name in _DIMENSIONS if name in (by or _DIMENSIONS)]
    rows = [[str(row[name]) for name in told] + _counts(row) for row in report["rows"]]
    if rows:
        rows.append(["total", *[""] * (len(told) - 1), *_counts(report["total"])])
    session.out.table(
        [*told, "requests", "prompt tokens", "cached", "answer tokens", "device", "energy"],
        rows,
        empty=f"Nothing was used since {options['since']}. To look further back: --since 400d",
    )


def _counts(used: dict[str, Any]) -> list[str]:
    joules = used["joules"]
    return [
        *(str(used[name]) for name in ("requests", "prompt_tokens", "cached_tokens", "answer_tokens")),
        f"{used['device_seconds']:.1f} s",
        "-" if joules is None else f"{joules:.0f} J" if joules < 10_000 else f"{joules / 3_600_000:.3f} kWh",
    ]
