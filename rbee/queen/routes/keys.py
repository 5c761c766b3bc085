"""Keys of clients: add, list, remove."""

from __future__ import annotations

import asyncio

from rbee.contracts.errors import ErrorCode
from rbee.contracts.queen import ClientKey, ClientList, ClientName
from rbee.daemonkit.operations import Routes
from rbee.errors import RbeeError
from rbee.queen.daemon import Queen

routes = Routes[Queen]("/v2/keys")


@routes.post("/add", status=201)
async def add(queen: Queen, body: ClientName) -> ClientKey:
    """Create a key for a client; it is shown only this once."""
    return ClientKey(name=body.name, key=await asyncio.to_thread(queen.client_keys.add, body.name))


@routes.get("/list")
async def list_clients(queen: Queen) -> ClientList:
    """List the clients that have a key."""
    return ClientList(clients=[ClientName(name=name) for name in queen.client_keys.names()])


@routes.post("/remove")
async def remove(queen: Queen, body: ClientName) -> None:
    """Remove a client's key."""
    if not await asyncio.to_thread(queen.client_keys.remove, body.name):
        known = ", ".join(queen.client_keys.names()) or "none"
        raise RbeeError(ErrorCode.KEY_NOT_FOUND, f"There is no key for {body.name}. Existing keys: {known}.")
