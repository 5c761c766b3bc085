"""Make the hive's application: its routes behind its key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from rbee.daemonkit.app import create_app as create_base
from rbee.daemonkit.auth import Authenticator
from rbee.hive.daemon import Hive
from rbee.hive.routes import admin, backends, logs, models, workers

READY_PATH = "/v1/workers/ready"


def create_app(hive: Hive, key: str, address: str) -> ASGIApp:
    """Return what is to be served. *address* is for messages."""
    gate = Authenticator(
        f"the hive at {address}",
        key,
        open_paths=["/v1/health"],
        client_key_lookup=lambda path, given: "worker" if path == READY_PATH and hive.workers.has_key(given) else None,
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with hive.running():
            yield

    async def control(websocket: WebSocket) -> None:
        await hive.channels.serve(websocket)

    return create_base(
        "rbee-hive",
        gate=gate,
        operations=[one for module in (admin, backends, models, workers, logs) for one in module.routes.of(hive)],
        more=[WebSocketRoute("/v1/control", control)],
        lifespan=lifespan,
    )
