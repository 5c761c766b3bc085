"""The hive itself: health, shutdown, metrics."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from rbee import __version__
from rbee.contracts.hives import HiveHealth, ShutdownReceipt
from rbee.hive.metrics import render_metrics
from rbee.hive.routes.dependencies import HiveDep

router = APIRouter()


@router.get("/v1/health")
async def health() -> HiveHealth:
    """Return that the hive is alive, and its version."""
    return HiveHealth(version=__version__)


@router.post("/v1/admin/shutdown")
async def shutdown(hive: HiveDep) -> ShutdownReceipt:
    """Shut down the hive; answered when its workers are gone. A second call gets the same receipt."""
    return await hive.drain.finish()


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(hive: HiveDep) -> Response:
    """Return the metrics of this hive for Prometheus."""
    body, media_type = await render_metrics(hive)
    return Response(body, media_type=media_type)
