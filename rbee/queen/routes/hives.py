"""Hives as the queen knows them."""

from __future__ import annotations

from fastapi import APIRouter

from rbee.contracts.queen import HiveList
from rbee.queen.routes.dependencies import QueenDep

router = APIRouter(prefix="/v2/hives")


@router.get("/list")
async def list_hives(queen: QueenDep) -> HiveList:
    """List every hive with what it reported."""
    return HiveList(hives=[hive.info() for hive in queen.fleet.registry.hives()])
