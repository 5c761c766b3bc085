"""Make a daemon's application: FastAPI inside the edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response
from starlette.types import ASGIApp

from rbee import __version__
from rbee.contracts.error_body import ErrorBody
from rbee.daemonkit import errors
from rbee.daemonkit.auth import Gate
from rbee.daemonkit.edge import Edge

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

MAX_BODY_BYTES = 4 * 1024 * 1024


def create_app(
    title: str,
    *,
    gate: Gate,
    routers: list[APIRouter],
    lifespan: Lifespan | None = None,
    state: dict[str, Any] | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    first: Mapping[str, ASGIApp] | None = None,
) -> tuple[FastAPI, ASGIApp]:
    """Build the application from its routers.

    Returns:
        the FastAPI application (for tests and its schema) and the ASGI callable to serve, which wraps it.
        Each item of *state* is an attribute of `app.state`. *first* is the edge's.
    """
    app = FastAPI(
        title=title,
        version=__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses={"default": {"model": ErrorBody, "description": "any failure"}},
    )
    errors.install(app)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    for name, value in (state or {}).items():
        setattr(app.state, name, value)
    for router in routers:
        app.include_router(router)
    return app, Edge(app, gate=gate, max_body_bytes=max_body_bytes, first=first)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # FastAPI says first where a field was: in the body, the query or the path. A field may be called like these.
    found = [{**item, "loc": item["loc"][1:]} for item in error.errors()]
    return errors.error_response(errors.validation_error(found), errors.request_id_of(request))
