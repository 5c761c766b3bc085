"""What the queen's routes depend on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, cast

from fastapi import Depends, Request
from starlette.types import Scope

from rbee.contracts.keys import Right
from rbee.daemonkit.auth import Authenticator
from rbee.queen import audit
from rbee.queen.daemon import Queen
from rbee.queen.keys.access import Client, require


async def _queen(request: Request) -> Queen:
    daemon: Queen = request.app.state.daemon
    return daemon


def client_of(scope: Scope) -> Client:
    """Return whose request it is."""
    return cast("Client", scope["state"]["caller"])


async def _client(request: Request) -> Client:
    return client_of(request.scope)


async def require_operator(request: Request) -> None:
    """Refuse a client that may not operate, and note for the audit what the request is about.

    Raises RbeeError FORBIDDEN.
    """
    state = request.scope["state"]
    require(client_of(request.scope), Right.OPERATE, f"{request.method} {request.url.path}")
    state["operates"] = True
    if request.method != "GET":
        state["what"] = audit.subject(await request.body(), request.query_params)


async def _operator_check(request: Request) -> Callable[[], None]:
    """Return a function that raises RbeeError once the caller's key or session does not open the route any more."""
    authenticator: Authenticator = request.app.state.authenticator
    path, headers = request.scope["path"], dict(request.scope["headers"])

    def check() -> None:
        require(cast("Client", authenticator.check(path, headers)), Right.OPERATE, f"GET {path}")

    return check


OperatorCheck = Annotated[Callable[[], None], Depends(_operator_check)]
QueenDep = Annotated[Queen, Depends(_queen)]
ClientDep = Annotated[Client, Depends(_client)]
