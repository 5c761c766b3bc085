"""`top`: the fleet as it is, in a terminal, while it changes."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

import click

from rbee.keeper.ui.lazy import Flags, KeeperCommand

if TYPE_CHECKING:
    from rbee.client.queen import QueenClient
    from rbee.keeper.queen.fleet_rows import FleetRows

_AGAIN_S: Final = 1.0


@click.command(cls=KeeperCommand)
@click.option("--once", is_flag=True, help="Print how it is now, and end; so it is in a pipe.")
@click.pass_obj
def top(flags: Flags, /, *, once: bool) -> None:
    """Show machines, models and requests of the whole fleet as they change, until Ctrl-C.

    Each device has a bar of its memory, cut by what takes it: workers, other programs, free. A request shows how long
    it waited, its first token, its tokens and their pace. With --json each change is a line.
    """
    from rbee.keeper.queen.fleet_rows import FleetRows
    from rbee.keeper.session import Session
    from rbee.keeper.ui.output import is_screen

    session = Session(flags)
    client, rows = session.queen(), FleetRows()
    if not (once or flags.json) and is_screen(sys.stdout):
        _follow(client, rows)
        return
    with client.events() as events:
        for event in events:
            rows.apply(event)
            if flags.json:
                session.out.event(event.name, event.data)
            if rows.complete and (once or not flags.json):
                break
    if not flags.json:
        from rbee.keeper.ui.screen import print_fleet

        print_fleet(rows)


def _follow(client: QueenClient, rows: FleetRows) -> None:
    """Draw what the events say, without an end; a queen that is gone for a while is waited for."""
    from rbee.errors import RbeeError
    from rbee.keeper.ui.screen import FleetScreen

    screen = FleetScreen(rows)
    with client.events() as events:  # where it cannot be followed, that is said before the screen is taken
        screen.apply(next(events))
    with screen.shown():
        while True:
            screen.reconnect()
            try:
                with client.events() as events:
                    for event in events:
                        screen.apply(event)
            except RbeeError as error:
                screen.fail(f"{error.message} Trying again.")
            time.sleep(_AGAIN_S)
