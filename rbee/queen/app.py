"""Build the queen's application: its routes behind its keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI
from starlette.types import ASGIApp

from rbee.contracts.ids import REQUEST_ID_HEADER
from rbee.daemonkit.app import create_app as create_base
from rbee.daemonkit.auth import Authenticator
from rbee.queen.audit import Audit
from rbee.queen.console.files import open_paths
from rbee.queen.daemon import Queen
from rbee.queen.keys.access import ADMIN
from rbee.queen.routes import (
    admin,
    compat,
    health,
    hives,
    keys,
    logs,
    models,
    nodes,
    tasks,
    workers,
)
from rbee.queen.routes.dependencies import require_operator
from rbee.queen.tasks.upstream_request import DIALECTS

# What a key that may only infer opens; everything else is the operator's.
_CLIENTS = (health, tasks)
_OPERATORS = (admin, nodes, hives, workers, models, keys, logs)


def create_app(queen: Queen, key: str, address: str, *, cors_origins: Collection[str] = ()) -> ASGIApp:
    """Return the application to serve. *address* is for messages; pages of *cors_origins* may use it in browsers."""
    audit = Audit(queen.paths.logs / "audit.log", inference=_is_inference)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with queen.running():
            yield
        audit.close()

    app = create_base(
        "queen-rbee",
        queen,
        authenticator=Authenticator(
            f"the queen at {address}",
            key,
            open_paths=["/health", "/v1/health", *open_paths()],
            operator=ADMIN,
            client_key_lookup=queen.client_keys.find,
            session_lookup=lambda method, headers: queen.console.cookies.caller(method, headers),
        ),
        routers=[*(module.router for module in _CLIENTS), _operators([module.router for module in _OPERATORS])],
        late_routers=_late_routers,
        lifespan=lifespan,
        fast_paths=compat.endpoints(queen),
        on_end=audit.note,
    )
    if not cors_origins:
        return app
    from starlette.middleware.cors import CORSMiddleware  # for the few queens that need it

    # Before the key is asked for: a browser sends none with the question whether it may.
    return CORSMiddleware(
        app,
        allow_origins=cors_origins,
        allow_methods=("GET", "POST", "PUT", "DELETE"),
        allow_headers=("*",),
        expose_headers=(REQUEST_ID_HEADER, "Retry-After"),
    )


def _operators(routers: Sequence[APIRouter]) -> APIRouter:
    """Return the routes of *routers* behind the right to operate."""
    operators = APIRouter(dependencies=[Depends(require_operator)])
    for router in routers:
        operators.include_router(router)
    return operators


def _late_routers() -> list[APIRouter]:
    """Return the routes of other servers' clients, but those of inference, which `compat` answers, and others."""
    # No start waits for them.
    from rbee.queen.routes import compat_descriptions, console, events, model_control, named_models, served, usage

    clients = [compat_descriptions.router, named_models.router, named_models.ollama, usage.router, console.router]
    operators = [model_control.router, model_control.ollama, served.router, served.explaining, events.router]
    return [*clients, _operators([*operators, console.operators])]


def _is_inference(path: str) -> bool:
    return path in DIALECTS or path == "/v2/tasks" or path.startswith("/v2/tasks/")
