"""Build the queen's application: its routes behind its key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

from rbee.daemonkit.app import create_app as create_base
from rbee.daemonkit.auth import Authenticator
from rbee.queen.daemon import Queen
from rbee.queen.routes import admin, compat, hives, keys, logs, models, nodes, tasks, workers


def create_app(queen: Queen, key: str, address: str) -> ASGIApp:
    """Return the application to serve. *address* is for messages."""
    modules = (admin, nodes, hives, workers, models, tasks, keys, logs, compat)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with queen.running():
            yield

    return create_base(
        "queen-rbee",
        queen,
        authenticator=Authenticator(
            f"the queen at {address}", key, open_paths=["/health"], client_key_lookup=queen.client_keys.owner
        ),
        routers=[module.router for module in modules],
        lifespan=lifespan,
        fast_paths=compat.endpoints(queen),
    )
