"""Set up a command: its settings, its output, and its client of the queen."""

from __future__ import annotations

import os

from rbee.client.queen import QueenClient
from rbee.keeper.settings import Settings, load
from rbee.keeper.ui import interrupts
from rbee.keeper.ui.lazy import Flags
from rbee.keeper.ui.output import Output


class Session:
    """One run of one command; from its creation on, Ctrl-C and SIGTERM end the command in order."""

    def __init__(self, flags: Flags, *, node: str | None = None) -> None:
        interrupts.watch()
        flags.node = node
        self.out = Output(flags)
        self.settings: Settings = load(dict(os.environ))

    def queen(self) -> QueenClient:
        """Return a client of the queen, which is expected to run."""
        return QueenClient(self.settings.queen_url, self.settings.api_key())
