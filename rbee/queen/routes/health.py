"""The queen's health, the only route without a key; clients look for it at either path."""

from __future__ import annotations

from fastapi import APIRouter

from rbee import __version__
from rbee.contracts.queen import QueenHealth

router = APIRouter()


@router.get("/health")
@router.get("/v1/health")
async def health() -> QueenHealth:
    """Return that the queen runs, and its version."""
    return QueenHealth(version=__version__)
