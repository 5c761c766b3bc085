"""Hives as the queen knows them."""

from __future__ import annotations

from rbee.contracts.queen import HiveList
from rbee.daemonkit.operations import Routes
from rbee.queen.daemon import Queen

routes = Routes[Queen]("/v2/hives")


@routes.get("/list")
async def list_hives(queen: Queen) -> HiveList:
    """List every hive with what it reported."""
    return HiveList(hives=[hive.info() for hive in queen.fleet.registry.hives()])
