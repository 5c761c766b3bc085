"""How often a request tries again, and what its client is told of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import WorkerInfo
from rbee.errors import RbeeError
from rbee.queen.fleet.worker_start import OUT_OF_MEMORY
from rbee.queen.progress import narration
from rbee.queen.relay.response_sink import ResponseSink

MORE_STARTS: Final = 5  # of a worker for which there was less memory than it seemed, or whose device was yielded
ROOM_LACKS: Final = (*OUT_OF_MEMORY, ErrorCode.ALL_SLOTS_BUSY, ErrorCode.DEVICE_YIELDED)


@dataclass(slots=True)
class RetryBudget:
    """The waits that a request has left: for a busy worker, for an unreachable one, and for how long it is held."""

    busy: list[float]
    unreachable: list[float]
    held_until: float | None = None
    starts: int = MORE_STARTS

    def hold(self, seconds: float) -> float:
        """Return for how many seconds the request is still held, *seconds* from the first call on."""
        now = asyncio.get_running_loop().time()
        if self.held_until is None:
            self.held_until = now + seconds
        return self.held_until - now


async def announce_retry(sink: ResponseSink, reason: str, waits: list[float], of: int) -> float:
    """Announce to the client why and for how long the request waits now; return the seconds."""
    wait = waits.pop(0)
    human = f"{reason}; retrying in {wait:.1f} s (retry {of - len(waits)} of {of})"
    await sink.emit(narration("queen-rbee", "retry", human, "🔁"))
    return wait


def slot_details(worker: WorkerInfo, refusal: RbeeError | None) -> dict[str, Any]:
    """Return the slots as the worker counts them, else as its hive did."""
    details = {} if refusal is None else refusal.details
    total = details.get("slots_total", worker.slots_total)
    return {"slots_total": total, "slots_busy": details.get("slots_busy", total)}


def retry_reason(refusal: RbeeError | None, slots: dict[str, Any]) -> str:
    """Return why a worker did not accept a request, for people."""
    if refusal is None or refusal.code is ErrorCode.ALL_SLOTS_BUSY:
        return f"all slots are busy ({slots['slots_busy']} of {slots['slots_total']})"
    return refusal.message.rstrip(".")
