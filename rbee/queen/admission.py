"""Decide whether one more task may come in.

Pure: the load and the limits go in, a refusal or nothing comes out. Tasks that are placed and tasks that still wait
for a slot, a download or a load all count. Ordering, priorities and deadlines would be decided here too.
"""

from __future__ import annotations

from dataclasses import dataclass

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError


@dataclass(frozen=True, slots=True)
class Load:
    """What the queen is doing: tasks accepted and not yet ended, and whether it is on its way out."""

    tasks: int
    draining: bool


def refusal(load: Load, *, max_tasks: int) -> RbeeError | None:
    """Give the reason why one more task is not accepted, or None where it is."""
    if load.draining:
        return RbeeError(ErrorCode.DRAINING, "The queen is stopping and takes no new task.")
    if load.tasks >= max_tasks:
        return RbeeError(
            ErrorCode.QUEUE_FULL,
            f"The queen already has {load.tasks} tasks, which is its limit.",
            details={"tasks": load.tasks, "max_tasks": max_tasks},
        )
    return None
