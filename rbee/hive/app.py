"""Build the hive's application: its routes behind its key."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

from rbee.daemonkit import tickets
from rbee.daemonkit.app import create_app as create_base
from rbee.daemonkit.auth import TICKET, Authenticator, Caller
from rbee.hive.daemon import Hive
from rbee.hive.routes import admin, backends, control, devices, logs, model_files, models, workers

READY_PATH = "/v1/workers/ready"
_WORKER = Caller("worker")


def create_app(hive: Hive, key: str, address: str) -> ASGIApp:
    """Return the application to serve. *address* is for messages."""

    def caller(path: str, given: str) -> Caller | None:
        if path == READY_PATH and hive.workers.has_key(given):
            return _WORKER
        model_path = model_files.path_of_model(path)
        if model_path is None:
            return None
        tickets.check_copy(key, model_path, given, now=time.time())
        return TICKET

    authenticator = Authenticator(
        f"the hive at {address}",
        key,
        open_paths=["/v1/health"],
        client_key_lookup=caller,
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with hive.running():
            yield

    return create_base(
        "rbee-hive",
        hive,
        authenticator=authenticator,
        routers=[module.router for module in (admin, backends, control, devices, models, model_files, workers, logs)],
        lifespan=lifespan,
    )
