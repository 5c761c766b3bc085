"""Begin a coroutine where one is, without a task: a send to a client that keeps pace never has to wait."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any


def begin(work: Coroutine[Any, Any, None]) -> Rest | None:
    """Run *work* up to where it has to wait; None if it ended before, else what is left of it, for a task to await.

    Up to there *work* runs in no task of its own, so it must not ask for the current one. Raises what it raises.
    """
    try:
        waits_for = work.send(None)
    except StopIteration:
        return None
    return Rest(work, waits_for)


class Rest:
    """What is left of a coroutine; to be awaited once."""

    def __init__(self, work: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._work = work
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, None]:
        """Show the task what the coroutine waits for, and go on with it, until its end."""
        waits_for = self._waits_for
        while True:
            go_on: Callable[[], Any]
            try:
                yield waits_for
            except BaseException as error:  # noqa: BLE001 -- a cancellation too is the coroutine's to handle
                go_on = partial(self._work.throw, error)
            else:
                go_on = partial(self._work.send, None)
            try:
                waits_for = go_on()
            except StopIteration:
                return
