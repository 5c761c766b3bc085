"""Print the progress of a playbook: a live table on a terminal, a line for each host and task in a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Self

from rbee.fleet.events import Event, HostStarted, HostTask, Outcome
from rbee.keeper.ui.output import LiveTable, Output, elapsed_text

# Ansible's own task at the beginning of each role.
_HIDDEN_TASK = "Validating arguments"
_COLUMNS = ("machine", "state", "tasks", "changed", "time", "now")


class PlaybookProgress:
    """The progress of one run; use it as a context, so that no table is left on the terminal."""

    def __init__(self, out: Output, hosts: Iterable[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._began = clock()
        self._rows: dict[str, _Row] = {host: _Row() for host in hosts}
        self._table: LiveTable | None = None

    def __enter__(self) -> Self:
        self._table = self._out.live_table(_COLUMNS, self.rows)
        return self

    def __exit__(self, *_: object) -> None:
        if self._table is not None:
            self._table.close()
            self._table = None

    def handle(self, event: Event) -> None:
        """Process one event."""
        if isinstance(event, HostStarted | HostTask) and event.task.startswith(_HIDDEN_TASK):
            return
        if isinstance(event, HostStarted):
            self._row(event.host).begin(event.task, self._clock())
        elif isinstance(event, HostTask):
            self._row(event.host).add(event)
            if self._table is None and event.outcome is not Outcome.SKIPPED:
                where = f"{event.role}: " if event.role else ""
                self._out.say(f"{event.host}: {where}{event.task}: {event.outcome.value}")

    def rows(self) -> list[list[str]]:
        """Return the rows of the table as they are now; a long task shows its own time behind its name."""
        now = self._clock()
        # Events come in another thread than that which draws.
        rows = list(self._rows.items())
        return [[host, *row.cells(now, elapsed_text(now - self._began))] for host, row in rows]

    def _row(self, host: str) -> _Row:
        return self._rows.setdefault(host, _Row())


_LONG_TASK_S = 5.0


class _Row:
    """One machine's line of the table."""

    def __init__(self) -> None:
        self.state = "waiting"
        self.tasks = 0
        self.changed = 0
        self._now = ""
        self._since = 0.0

    def begin(self, task: str, now: float) -> None:
        """Note a task that begins."""
        self._now, self._since = task, now

    def add(self, event: HostTask) -> None:
        """Count a finished task."""
        if event.outcome is Outcome.RETRY:
            return
        self.tasks += 1
        self.changed += event.outcome is Outcome.CHANGED
        failed = event.outcome in (Outcome.FAILED, Outcome.UNREACHABLE)
        self.state = event.outcome.value if failed else "running"

    def cells(self, now: float, elapsed: str) -> list[str]:
        """Return the cells of the row; *elapsed* is the time of the run."""
        took = now - self._since
        task = f"{self._now} ({elapsed_text(took)})" if self._now and took >= _LONG_TASK_S else self._now
        return [self.state, str(self.tasks), str(self.changed), elapsed, task]
