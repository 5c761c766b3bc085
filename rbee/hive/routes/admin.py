"""The hive itself: health, its end, its figures, and the queen's channel."""

from __future__ import annotations

from fastapi import APIRouter, WebSocket
from starlette.responses import Response

from rbee import __version__
from rbee.contracts.hives import HiveHealth, ShutdownReceipt
from rbee.hive.deps import HiveDep, get_hive
from rbee.hive.metrics import figures

router = APIRouter()


@router.get("/v1/health")
async def health() -> HiveHealth:
    """Say that the hive lives, and its version."""
    return HiveHealth(version=__version__)


@router.post("/v1/admin/shutdown")
async def shutdown(hive: HiveDep) -> ShutdownReceipt:
    """End the hive; answered when its workers are gone. Asking twice gives the same receipt."""
    return await hive.drain.finish()


@router.get("/metrics", response_class=Response)
async def metrics(hive: HiveDep) -> Response:
    """Give the figures of this hive for Prometheus."""
    body, media_type = await figures(hive)
    return Response(body, media_type=media_type)


@router.websocket("/v1/control")
async def control(websocket: WebSocket) -> None:
    """Keep a queen informed."""
    hive = await get_hive(websocket)
    await hive.channels.serve(websocket)
