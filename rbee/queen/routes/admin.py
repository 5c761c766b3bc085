"""The queen herself: health, status, figures, her end."""

from __future__ import annotations

import os

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from rbee import __version__
from rbee.contracts.hives import CascadeReceipt
from rbee.contracts.queen import QueenHealth, QueenShutdown, QueenStatus
from rbee.daemonkit.json_body import JsonBody
from rbee.queen.metrics import figures
from rbee.queen.routes.dependencies import QueenDep

router = APIRouter()


@router.get("/health")
async def health() -> QueenHealth:
    """Say that the queen lives, and her version."""
    return QueenHealth(version=__version__)


@router.get("/v2/status")
async def status(queen: QueenDep) -> QueenStatus:
    """Give the figures that `daemon status` shows."""
    registry = queen.fleet.registry
    return QueenStatus(
        version=__version__,
        pid=os.getpid(),
        started_unix=queen.started_unix,
        ephemeral=queen.ephemeral,
        hives_connected=sum(1 for hive in registry.hives() if hive.connected),
        workers=len(registry.workers()),
        tasks_running=len(queen.board),
        tasks_waiting=queen.board.waiting,
    )


@router.post("/v1/admin/shutdown")
async def shutdown(queen: QueenDep, body: JsonBody[QueenShutdown | None] = None) -> CascadeReceipt:
    """End the queen, her hives and every worker; answered when they are gone."""
    wish = body or QueenShutdown()
    return await queen.end(when_idle=wish.when_idle, hives=wish.hives)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(queen: QueenDep) -> Response:
    """Give the queen's figures for Prometheus."""
    body, media_type = figures(queen)
    return Response(body, media_type=media_type)
