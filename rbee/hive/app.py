"""Make the hive's application: its routes behind its key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

from rbee.daemonkit.app import create_app as create_base
from rbee.daemonkit.auth import Gate
from rbee.hive.daemon import Hive
from rbee.hive.routes import admin, backends, logs, models, workers

READY_PATH = "/v1/workers/ready"


def create_app(hive: Hive, key: str, address: str) -> tuple[FastAPI, ASGIApp]:
    """Give the FastAPI application, and the ASGI callable to serve. *address* is for messages."""
    gate = Gate(
        f"the hive at {address}",
        key,
        open_paths=["/v1/health"],
        also=lambda path, given: "worker" if path == READY_PATH and hive.crew.opens_ready(given) else None,
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with hive.running():
            yield

    return create_base(
        "rbee-hive",
        gate=gate,
        routers=[admin.router, backends.router, models.router, workers.router, logs.router],
        lifespan=lifespan,
        state={"hive": hive},
    )
