"""Ask hives what memory a model would take, so that what is explained and planned has their numbers."""

from __future__ import annotations

import asyncio
from typing import Final

from rbee.contracts.workers import SpawnRequest
from rbee.errors import RbeeError
from rbee.queen.fleet.control_channels import ControlChannels
from rbee.queen.fleet.state import FleetState
from rbee.queen.scheduling.request import PlacementRequest

MOST_ASKED: Final = 8  # hives; the others estimate alike
WITHIN_S: Final = 2.0


async def learn_needs(fleet: FleetState, channels: ControlChannels, request: PlacementRequest) -> None:
    """Learn what a model takes, from some of the hives that have it; one that does not say is passed over."""
    spellings = fleet.spellings(request.model)
    nodes = [node for name in spellings for node, _ in fleet.registry.models.entries(name)]
    allowed = [node for node in dict.fromkeys(nodes) if request.allows_node(node) and fleet.connected(node)]
    await asyncio.gather(*(_learn(fleet, channels, request, node) for node in allowed[:MOST_ASKED]))


async def _learn(fleet: FleetState, channels: ControlChannels, request: PlacementRequest, node: str) -> None:
    options = {} if request.served is None else request.served.options
    try:
        async with asyncio.timeout(WITHIN_S):
            estimate = await channels.client(node).estimate(SpawnRequest(model=request.model, **options))
    except (RbeeError, TimeoutError):
        return  # its hive is gone, of an earlier version, or does not take these options: a start will say so
    for backend, need in estimate.need_bytes.items():
        fleet.occupancy.learn_need(request.name, request.revision, backend, need)
