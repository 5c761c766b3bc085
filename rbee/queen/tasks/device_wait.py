"""Wait with a request until a device is given back that was yielded to another program."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from rbee.contracts.errors import ErrorCode
from rbee.queen.fleet.state import FleetState
from rbee.queen.scheduling.placement import Decision
from rbee.queen.scheduling.rejections import Refusal
from rbee.queen.scheduling.request import PlacementRequest


def waits_for_device(decision: Decision) -> bool:
    """Return whether a request cannot run now, and could on a device that is yielded."""
    return isinstance(decision, Refusal) and decision.code is ErrorCode.DEVICE_YIELDED


def must_wait(fleet: FleetState, decision: Decision, alternatives: Iterable[PlacementRequest]) -> bool:
    """Return whether a request waits for a yielded device, and none of *alternatives*, to try instead, has a place."""
    return waits_for_device(decision) and all(isinstance(fleet.place(each), Refusal) for each in alternatives)


async def wait_for_device(
    fleet: FleetState, request: PlacementRequest, alternatives: Iterable[PlacementRequest], within_s: float
) -> Decision:
    """Return where a request runs once it must not wait for a device any more, or after *within_s* seconds."""

    def look() -> Decision | None:
        placed = fleet.place(request)
        return None if must_wait(fleet, placed, alternatives) else placed

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            return await fleet.wait_for(look)
    return fleet.place(request)
