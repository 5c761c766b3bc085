"""Wait until a hive has told over its channel what it has just answered, so that lists agree with receipts.

A hive answers over one connection and tells its queens over another, so a receipt may be the first by a moment. Who has
a receipt may look at the lists, or send a request, at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from typing import Final

from rbee.contracts.devices import Backend
from rbee.queen.fleet.state import FleetState

HEARD_WITHIN_S: Final = 2.0  # a channel that is silent for longer is another matter


async def hear_of_ends(fleet: FleetState, worker_ids: Collection[str]) -> None:
    """Wait until the fleet has no worker of these any more."""
    registry = fleet.registry
    await _hear(fleet, lambda: all(registry.worker(each) is None for each in worker_ids), worker_ids)


async def hear_of_yields(
    fleet: FleetState, node: str, devices: Collection[tuple[Backend, int]], *, yielded: bool
) -> None:
    """Wait until these devices of a node count as yielded, or none of them any more; a node that is lost has none."""

    def told() -> bool:
        hive = fleet.registry.hive(node)
        if hive is None or not hive.connected:
            return True
        return all((hive.yielded_at(*device) is not None) is yielded for device in devices)

    await _hear(fleet, told, (node,))


async def _hear(fleet: FleetState, told: Callable[[], bool], about: Collection[str]) -> None:
    if told():
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(HEARD_WITHIN_S):
            await fleet.wait_for(lambda: told() or None, *about)
