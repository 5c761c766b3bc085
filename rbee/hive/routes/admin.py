"""The hive itself: health, its end, its figures."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from rbee import __version__
from rbee.contracts.hives import HiveHealth, ShutdownReceipt
from rbee.hive.metrics import figures
from rbee.hive.routes.dependencies import HiveDep

router = APIRouter()


@router.get("/v1/health")
async def health() -> HiveHealth:
    """Say that the hive lives, and its version."""
    return HiveHealth(version=__version__)


@router.post("/v1/admin/shutdown")
async def shutdown(hive: HiveDep) -> ShutdownReceipt:
    """End the hive; answered when its workers are gone. Asking twice gives the same receipt."""
    return await hive.drain.finish()


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(hive: HiveDep) -> Response:
    """Give the figures of this hive for Prometheus."""
    body, media_type = await figures(hive)
    return Response(body, media_type=media_type)
