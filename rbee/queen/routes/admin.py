"""The queen itself: status, metrics, shutdown."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from rbee.contracts.hives import CascadeReceipt
from rbee.contracts.queen import QueenShutdown, QueenStatus
from rbee.daemonkit.json_body import JsonBody
from rbee.queen.metrics import render_metrics
from rbee.queen.routes.dependencies import QueenDep

router = APIRouter()


@router.get("/v2/status")
async def status(queen: QueenDep) -> QueenStatus:
    """Return what `daemon status` shows."""
    return queen.status()


@router.post("/v1/admin/shutdown")
async def shutdown(queen: QueenDep, body: JsonBody[QueenShutdown | None] = None) -> CascadeReceipt:
    """End the queen, its hives and every worker; the answer comes when they are gone."""
    options = body or QueenShutdown()
    return await queen.end(when_idle=options.when_idle, hives=options.hives)


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(queen: QueenDep) -> Response:
    """Return the queen's metrics for Prometheus."""
    body, media_type = render_metrics(queen)
    return Response(body, media_type=media_type)
