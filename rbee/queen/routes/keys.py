"""Keys of clients: add, list, remove."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.responses import Response

from rbee.contracts.errors import ErrorCode
from rbee.contracts.queen import ClientKey, ClientList, ClientName
from rbee.daemonkit.json_body import JsonBody
from rbee.errors import RbeeError
from rbee.queen.routes.dependencies import QueenDep

router = APIRouter(prefix="/v2/keys")


@router.post("/add", status_code=201)
async def add(queen: QueenDep, body: JsonBody[ClientName]) -> ClientKey:
    """Create a key for a client; it is shown only this once."""
    return ClientKey(name=body.name, key=await asyncio.to_thread(queen.client_keys.add, body.name))


@router.get("/list")
async def list_clients(queen: QueenDep) -> ClientList:
    """List the clients that have a key."""
    return ClientList(clients=[ClientName(name=name) for name in queen.client_keys.names()])


@router.post("/remove", status_code=204, response_class=Response)
async def remove(queen: QueenDep, body: JsonBody[ClientName]) -> None:
    """Remove a client's key."""
    if not await asyncio.to_thread(queen.client_keys.remove, body.name):
        known = ", ".join(queen.client_keys.names()) or "none"
        raise RbeeError(ErrorCode.KEY_NOT_FOUND, f"There is no key for {body.name}. Existing keys: {known}.")
