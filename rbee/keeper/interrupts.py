"""Signals as exceptions: the first ends the command in order, the second ends it at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The user or the system asked this command to end. `told`: the command has said what became of its work."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
        self.told = False

    @property
    def exit_code(self) -> int:
        """Give the shell's code for it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum


def watch(signals: Iterable[signal.Signals] = ENDING) -> None:
    """Raise `Interrupted` in the main thread at the first of *signals*; leave ignored ones ignored (nohup)."""
    for one in signals:
        if signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, _first)


def _first(signum: int, _frame: object) -> None:
    for one in ENDING:
        if signal.getsignal(one) is _first:
            signal.signal(one, _second)
    raise Interrupted(signum)


def _second(signum: int, _frame: object) -> None:
    # No clean-up on purpose: what this process owns ends with its lifelines.
    os._exit(128 + signum)
