"""What supervision wants done: the instructions it gives, each carried out once."""

from __future__ import annotations

from dataclasses import dataclass

from rbee.contracts.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class Check:
    """Ask the worker for its health; the outcome comes back as `Answered` or `Missed`."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell the worker to finish and go; `unused` where nothing but that is why."""

    worker_id: str
    reason: str
    unused: bool = False


@dataclass(frozen=True, slots=True)
class Kill:
    """End the worker's process now; `code` is what the requests it had fail with, None if it was asked to go."""

    worker_id: str
    reason: str
    code: ErrorCode | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the queens what the worker is now."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class RemoveWorker:
    """Take the worker out of the lists and tell the queens; `code` is None where it was asked to go."""

    worker_id: str
    reason: str
    code: ErrorCode | None = None


@dataclass(frozen=True, slots=True)
class Replace:
    """Spawn another like this one, which is about to be forgotten."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class ShutDownHive:
    """End the hive: no queen is left, and that is what it was told to do then."""

    reason: str


Instruction = Check | Stop | Kill | Report | RemoveWorker | Replace | ShutDownHive
