"""Keys of clients: make, list, take back."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter

from rbee.contracts.errors import ErrorCode
from rbee.contracts.queen import ClientKey, ClientList, ClientName
from rbee.errors import RbeeError
from rbee.queen.deps import QueenDep

router = APIRouter(prefix="/v2/keys")


@router.post("/add", status_code=201)
async def add(client: ClientName, queen: QueenDep) -> ClientKey:
    """Make a key for a client; it is shown this once."""
    return ClientKey(name=client.name, key=await asyncio.to_thread(queen.client_keys.add, client.name))


@router.get("/list")
async def list_clients(queen: QueenDep) -> ClientList:
    """List the clients that have a key."""
    return ClientList(clients=[ClientName(name=name) for name in queen.client_keys.names()])


@router.post("/remove", status_code=204)
async def remove(client: ClientName, queen: QueenDep) -> None:
    """Take a client's key back."""
    if not await asyncio.to_thread(queen.client_keys.remove, client.name):
        known = ", ".join(queen.client_keys.names()) or "nobody"
        raise RbeeError(ErrorCode.KEY_NOT_FOUND, f"There is no key for {client.name}; there are keys for: {known}.")
