"""Build a daemon's FastAPI application behind the middleware."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from rbee import __version__
from rbee.contracts.error_body import ErrorBody
from rbee.daemonkit import errors
from rbee.daemonkit.auth import Authenticator
from rbee.daemonkit.middleware import RequestMiddleware

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

MAX_BODY_BYTES = 4 * 1024 * 1024


def create_app(
    title: str,
    daemon: object,
    *,
    authenticator: Authenticator,
    routers: Sequence[APIRouter],
    late_routers: Callable[[], Sequence[APIRouter]] = tuple,
    lifespan: Lifespan | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    fast_paths: Mapping[str, ASGIApp] | None = None,
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    on_end: Callable[[Scope, int], None] | None = None,
) -> ASGIApp:
    """Build the application.

    Args:
        title: the daemon's name, for the description of its routes.
        daemon: the object that the routes depend on, as `app.state.daemon`.
        authenticator: checks every request; routes have it as `app.state.authenticator`, for what goes on for long.
        late_routers: returns routers that are added at the first request that no other route matches, in a thread: to
            import and describe them would cost every start.
        fast_paths: by path, the application that handles POST requests without FastAPI; the routers describe these
            paths too.
        around: wraps the application that requests reach once they are authenticated.
        on_end: called with the scope and the status of every request at its end (`RequestMiddleware`).
    """
    app = FastAPI(
        title=title,
        version=__version__,
        lifespan=lifespan,
        # Their pages would load scripts from another host.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        # Instead of FastAPI's 422: every error has the same body.
        responses={"default": {"model": ErrorBody, "description": "Any failure"}},
    )
    app.state.daemon = daemon
    app.state.authenticator = authenticator
    for router in routers:
        app.include_router(router)
    late = _LateRoutes(app, late_routers)
    app.openapi = lambda: _describe(late.added(), authenticator)  # type: ignore[method-assign]
    errors.install(app)
    return RequestMiddleware(
        around(app), authenticator=authenticator, max_body_bytes=max_body_bytes, fast_paths=fast_paths, on_end=on_end
    )


class _LateRoutes:
    """Adds routers to *app* once they are needed."""

    def __init__(self, app: FastAPI, load: Callable[[], Sequence[APIRouter]]) -> None:
        self._app = app
        self._load = load
        self._not_found = app.router.default
        self._added = False
        self._loading: asyncio.Future[Sequence[APIRouter]] | None = None
        app.router.default = self

    def added(self) -> FastAPI:
        """Return the application with all its routes."""
        self._add(self._load)
        return self._app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route a request again that none of the first routes matches."""
        if self._added or scope["type"] != "http":
            await self._not_found(scope, receive, send)
            return
        if self._loading is None:
            self._loading = asyncio.ensure_future(asyncio.to_thread(self._load))
        routers = await asyncio.shield(self._loading)
        self._add(lambda: routers)
        await self._app.router(scope, receive, send)

    def _add(self, load: Callable[[], Sequence[APIRouter]]) -> None:
        if not self._added:
            self._added = True
            for router in load():
                self._app.include_router(router)


def _operation_id(route: APIRoute) -> str:
    words = [*sorted(route.methods or ()), *route.path_format.strip("/").split("/")]
    return "_".join(word.strip("{}").lower() for word in words)


def _describe(app: FastAPI, authenticator: Authenticator) -> dict[str, Any]:
    """Return the OpenAPI document: docstrings as summaries, and the key that all paths but the open ones require."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        components = document.setdefault("components", {})
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
        for path, operations in document["paths"].items():
            for operation in operations.values():
                operation["summary"] = operation.get("description", operation["summary"]).partition("\n")[0].rstrip(".")
                operation.pop("description", None)
                if path in authenticator.open_paths:
                    operation["security"] = []
        app.openapi_schema = document
    return app.openapi_schema
