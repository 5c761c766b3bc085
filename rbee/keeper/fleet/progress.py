"""Print the progress of a playbook: a live table on a terminal, a line for each host and task in a pipe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from rbee.fleet.events import Event, HostStarted, HostTask, Outcome
from rbee.keeper.ui.output import LiveTable, Output

# Ansible's own task at the beginning of each role.
_HIDDEN_TASK = "Validating arguments"
_COLUMNS = ("machine", "state", "tasks", "changed", "now")


class PlaybookProgress:
    """The progress of one run; use it as a context, so that no table is left on the terminal."""

    def __init__(self, out: Output, hosts: Iterable[str]) -> None:
        self._out = out
        self._rows: dict[str, _Row] = {host: _Row() for host in hosts}
        self._table: LiveTable | None = None

    def __enter__(self) -> Self:
        self._table = self._out.live_table(_COLUMNS)
        self._show()
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
            self._row(event.host).now = event.task
            self._show()
        elif isinstance(event, HostTask):
            self._row(event.host).add(event)
            self._show()
            if self._table is None and event.outcome is not Outcome.SKIPPED:
                where = f"{event.role}: " if event.role else ""
                self._out.say(f"{event.host}: {where}{event.task}: {event.outcome.value}")

    def _row(self, host: str) -> _Row:
        return self._rows.setdefault(host, _Row())

    def _show(self) -> None:
        if self._table is not None:
            self._table.show([[host, *row.cells()] for host, row in self._rows.items()])


class _Row:
    """One machine's line of the table."""

    def __init__(self) -> None:
        self.now = ""
        self.state = "waiting"
        self.tasks = 0
        self.changed = 0

    def add(self, event: HostTask) -> None:
        """Count a finished task."""
        if event.outcome is Outcome.RETRY:
            return
        self.tasks += 1
        self.changed += event.outcome is Outcome.CHANGED
        failed = event.outcome in (Outcome.FAILED, Outcome.UNREACHABLE)
        self.state = event.outcome.value if failed else "running"

    def cells(self) -> list[str]:
        """Return the cells of the row."""
        return [self.state, str(self.tasks), str(self.changed), self.now]
