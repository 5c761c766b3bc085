"""`explain`: where a model runs or could run, and why not elsewhere."""

from __future__ import annotations

from typing import Any

import click

from rbee.keeper.ui.lazy import Flags, KeeperCommand

_VERDICTS = {"fits_after_eviction": "fits after eviction", "impossible": "cannot"}


@click.command(cls=KeeperCommand)
@click.argument("model", metavar="MODEL")
@click.pass_obj
def explain(flags: Flags, /, model: str) -> None:
    """Explain for each node and device whether MODEL runs there, could run there, or why not.

    MODEL is a declared name, a preset, an alias or a reference. Nothing is started or stopped. A device where the
    model fits after eviction has idle workers that would end for it; one where it waits is in use.
    """
    from rbee.keeper.queen.lifecycle import queen_for
    from rbee.keeper.session import Session

    session = Session(flags)
    with queen_for(session) as queen:
        found = queen.client.explain(model)
    if flags.json:
        session.out.data(found)
        return
    session.out.say(f"{found['model']}: {found['next']}.")
    session.out.table(
        ["node", "on", "model", "need", "free", "why"],
        [_row(candidate) for candidate in found["candidates"]],
        empty="No node is registered. To add one: rbee-keeper config set-ssh --help",
    )


def _row(candidate: dict[str, Any]) -> list[str]:
    from rbee.keeper.ui.output import size_text

    backend, device = candidate["backend"], candidate["device"]
    return [
        candidate["node"],
        "-" if backend is None else f"{backend}:{device}",
        _VERDICTS.get(candidate["verdict"], candidate["verdict"]),
        size_text(candidate["need_bytes"]),
        size_text(candidate["free_bytes"]),
        candidate["reason"],
    ]
