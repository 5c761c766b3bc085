"""The hive itself: health, shutdown, metrics."""

from __future__ import annotations

from starlette.responses import Response

from rbee import __version__
from rbee.contracts.hives import HiveHealth, ShutdownReceipt
from rbee.daemonkit.operations import Routes
from rbee.hive.daemon import Hive
from rbee.hive.metrics import render_metrics

routes = Routes[Hive]()


@routes.get("/v1/health")
async def health(_hive: Hive) -> HiveHealth:
    """Return that the hive is alive, and its version."""
    return HiveHealth(version=__version__)


@routes.post("/v1/admin/shutdown")
async def shutdown(hive: Hive) -> ShutdownReceipt:
    """Shut down the hive; answered when its workers are gone. A second call gets the same receipt."""
    return await hive.drain.finish()


@routes.get("/metrics")
async def metrics(hive: Hive) -> Response:
    """Return the metrics of this hive for Prometheus."""
    body, media_type = await render_metrics(hive)
    return Response(body, media_type=media_type)
