"""Build a daemon's FastAPI application behind the middleware."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Scope

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
    for router in routers:
        app.include_router(router)
    app.openapi = lambda: _describe(app, authenticator)  # type: ignore[method-assign]
    errors.install(app)
    return RequestMiddleware(
        around(app), authenticator=authenticator, max_body_bytes=max_body_bytes, fast_paths=fast_paths, on_end=on_end
    )


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
