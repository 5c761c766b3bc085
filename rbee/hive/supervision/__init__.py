"""Supervise workers as a pure state machine."""

from __future__ import annotations

from rbee.hive.supervision.events import (
    Bound,
    Drained,
    Event,
    Exited,
    HealthCheckAnswered,
    HealthCheckMissed,
    LeaseRenewed,
    ModelChanged,
    Reported,
    Spawned,
    StopAsked,
    Tick,
)
from rbee.hive.supervision.instructions import (
    Check,
    Instruction,
    Kill,
    RemoveWorker,
    Replace,
    Report,
    ShutDownHive,
    Stop,
)
from rbee.hive.supervision.machine import Policy, Supervision, WorkerStatus

__all__ = [
    "Bound",
    "Check",
    "Drained",
    "Event",
    "Exited",
    "HealthCheckAnswered",
    "HealthCheckMissed",
    "Instruction",
    "Kill",
    "LeaseRenewed",
    "ModelChanged",
    "Policy",
    "RemoveWorker",
    "Replace",
    "Report",
    "Reported",
    "ShutDownHive",
    "Spawned",
    "Stop",
    "StopAsked",
    "Supervision",
    "Tick",
    "WorkerStatus",
]
