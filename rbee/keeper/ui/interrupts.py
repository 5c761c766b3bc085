"""Turn signals into exceptions: the first ends the command in order, the second ends it at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """The user or the system asked this command to end. `reported`: the command has printed the outcome."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum
        self.reported = False

    @property
    def exit_code(self) -> int:
        """Return the exit code that a shell expects: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum


def watch(signals: Iterable[signal.Signals] = ENDING) -> None:
    """Raise `Interrupted` in the main thread at the first of *signals*; leave ignored ones ignored (nohup)."""
    for one in signals:
        if signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, _first)


@contextmanager
def each_raises() -> Iterator[None]:
    """Let every Ctrl-C raise KeyboardInterrupt, for a program that goes on after one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def defer_signals() -> Iterator[Callable[[], int | None]]:
    """Store the first signal instead of raising it, for work that polls and ends itself in order.

    Yields a function that returns the signal, or None while there is none. A second signal ends the process at once.
    """
    came: list[int] = []

    def note(signum: int, _frame: object) -> None:
        if came:
            os._exit(128 + signum)
        came.append(signum)

    before = {one: signal.getsignal(one) for one in ENDING}
    for one, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(one, note)
    try:
        yield lambda: came[0] if came else None
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _first(signum: int, _frame: object) -> None:
    for one in ENDING:
        if signal.getsignal(one) is _first:
            signal.signal(one, _second)
    raise Interrupted(signum)


def _second(signum: int, _frame: object) -> None:
    # No clean-up on purpose: what this process owns ends with its lifelines.
    os._exit(128 + signum)
