"""Show the fleet on the terminal: once, or on the whole screen while it changes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from rbee.keeper.ui.fleet_frame import frame
from rbee.keeper.ui.output import is_screen
from rbee.keeper.ui.printable import printable

if TYPE_CHECKING:
    from rbee.client.event import Event
    from rbee.keeper.queen.fleet_rows import FleetRows

_WIDTH_IN_A_PIPE: Final = 120
_NO_END: Final = 10_000


def print_fleet(rows: FleetRows) -> None:
    """Print the fleet once, on stdout."""
    console = Console(highlight=False, width=None if is_screen(sys.stdout) else _WIDTH_IN_A_PIPE)
    console.print(frame(rows, width=console.width, height=_NO_END, now_unix=time.time()))


class FleetScreen:
    """The fleet on the whole screen, drawn anew four times a second, with what is wrong above it."""

    def __init__(self, rows: FleetRows) -> None:
        self._rows = rows
        self._problem = ""
        self._lock = threading.Lock()
        self._console = Console(highlight=False)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Take the screen for as long as the context lasts."""
        with Live(console=self._console, screen=True, refresh_per_second=4, get_renderable=self._draw):
            yield

    def reconnect(self) -> None:
        """Show what was known last until everything has come anew."""
        with self._lock:
            self._rows.reconnect()

    def apply(self, event: Event) -> None:
        """Follow an event; once everything has come, nothing is wrong any more."""
        with self._lock:
            self._rows.apply(event)
            if self._rows.complete:
                self._problem = ""

    def fail(self, problem: str) -> None:
        """Show what is wrong, above what was known last."""
        with self._lock:
            self._problem = problem

    def _draw(self) -> RenderableType:
        console = self._console
        with self._lock:
            picture = frame(self._rows, width=console.width, height=console.height, now_unix=time.time())
            return Group(Text(printable(self._problem), "red"), picture) if self._problem else picture
