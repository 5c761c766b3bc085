"""Note what becomes of a task, for people who watch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import WorkerInfo
from rbee.queen.relay.stream import StreamObserver
from rbee.queen.scheduling.admission_queue import QueueEntry
from rbee.queen.usage.ledger import Usage

if TYPE_CHECKING:
    from rbee.contracts.events import TaskRow, TaskState


@dataclass(slots=True)
class Activity:
    """One task. Times in seconds: `arrived` and the others of the event loop, `arrived_unix` since the epoch."""

    id: str
    client: str
    model: str
    priority: int
    arrived: float
    arrived_unix: float
    worker: WorkerInfo | None = None
    placed_at: float | None = None
    observer: StreamObserver | None = None
    usage: Usage | None = None
    ended_at: float | None = None
    error: ErrorCode | None = None

    def placed(self, worker: WorkerInfo, model: str, now: float) -> None:
        """Note the worker that has accepted it, which may be one of another model than was asked for."""
        self.worker, self.model, self.placed_at = worker, model, now

    def row(self, now: float, entry: QueueEntry | None = None) -> TaskRow:
        """Return it as it is shown; *entry* is its place in the queue, if it waits there."""
        from rbee.contracts.events import TaskRow  # only where somebody watches

        observer, usage, end = self.observer, self.usage, self.ended_at if self.ended_at is not None else now
        first = observer.first_token_at if observer is not None else None
        placed = self.worker is not None
        return TaskRow(
            id=self.id,
            client=self.client,
            model=self.model,
            priority=self.priority,
            state=self._state,
            arrived_unix=self.arrived_unix,
            node=None if self.worker is None else self.worker.node,
            worker_id=None if self.worker is None else self.worker.worker_id,
            position=entry.position if entry is not None and not placed else None,
            queue_length=entry.length if entry is not None and not placed else None,
            waited_s=_rounded((end if self.placed_at is None else self.placed_at) - self.arrived),
            first_token_s=None if first is None else _rounded(first - self.arrived),
            took_s=_rounded(end - self.arrived),
            tokens=0 if observer is None else observer.tokens or (usage.answer_tokens if usage is not None else 0),
            prompt_tokens=None if usage is None else usage.prompt_tokens,
            cached_tokens=None if usage is None else usage.cached_tokens,
            error=None if self.error is None else self.error.value,
        )

    @property
    def _state(self) -> TaskState:
        if self.ended_at is None:
            return "waiting" if self.worker is None else "running"
        if self.error is None:
            return "done"
        return "canceled" if self.error is ErrorCode.CANCELED else "failed"


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
