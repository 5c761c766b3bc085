"""The instructions of supervision, each to be carried out once."""

from __future__ import annotations

from dataclasses import dataclass

from rbee.contracts.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class Check:
    """Check the worker's health; the outcome comes back as an event."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell the worker to finish, within `drain_s` seconds where that is said, and end.

    `unused` is true where being idle is the reason.
    """

    worker_id: str
    reason: str
    unused: bool = False
    drain_s: float | None = None


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill the worker's process; `code` is what its requests fail with, None if it was to stop anyway."""

    worker_id: str
    reason: str
    code: ErrorCode | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Send the worker's state to the queens."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class RemoveWorker:
    """Remove the worker from the lists and tell the queens; `code` is None where it was to stop."""

    worker_id: str
    reason: str
    code: ErrorCode | None = None


@dataclass(frozen=True, slots=True)
class Replace:
    """Start another worker like this one, which is about to be removed."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class ShutDownHive:
    """Shut down the hive: no queen is left, and its settings say so."""

    reason: str


Instruction = Check | Stop | Kill | Report | RemoveWorker | Replace | ShutDownHive
