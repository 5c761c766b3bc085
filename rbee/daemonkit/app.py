"""Make a daemon's application: its operations inside the edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from rbee.daemonkit import errors
from rbee.daemonkit.auth import Authenticator
from rbee.daemonkit.middleware import RequestMiddleware
from rbee.daemonkit.operations import Operation, served

Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]

MAX_BODY_BYTES = 4 * 1024 * 1024


def create_app(
    title: str,
    *,
    gate: Authenticator,
    operations: Sequence[Operation],
    more: Sequence[BaseRoute] = (),
    lifespan: Lifespan | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    first: Mapping[str, ASGIApp] | None = None,
) -> ASGIApp:
    """Build what is to be served.

    Args:
        title: the daemon's name, for the description of its operations.
        more: routes that are no operations, such as WebSockets.
        first: the edge's.
    """
    app = Starlette(routes=[*served(operations, title), *more], lifespan=lifespan)
    errors.install(app)
    return RequestMiddleware(app, gate=gate, max_body_bytes=max_body_bytes, first=first)
