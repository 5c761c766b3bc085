"""Supervision of workers as a pure state machine: its one public door."""

from __future__ import annotations

from rbee.hive.supervision.events import (
    Answered,
    Bound,
    Drained,
    Event,
    Exited,
    Leased,
    Missed,
    Reported,
    Spawned,
    StopAsked,
    Tick,
)
from rbee.hive.supervision.instructions import Check, Forget, Instruction, Kill, Leave, Replace, Report, Stop
from rbee.hive.supervision.machine import Life, Policy, Supervision

__all__ = [
    "Answered",
    "Bound",
    "Check",
    "Drained",
    "Event",
    "Exited",
    "Forget",
    "Instruction",
    "Kill",
    "Leased",
    "Leave",
    "Life",
    "Missed",
    "Policy",
    "Replace",
    "Report",
    "Reported",
    "Spawned",
    "Stop",
    "StopAsked",
    "Supervision",
    "Tick",
]
