"""Keys of clients: add, change, list, remove."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from rbee.contracts.keys import KeyChange, KeyCreated, KeyInfo, KeyList, KeyName, KeySpec
from rbee.daemonkit.json_body import JsonBody
from rbee.queen.routes.dependencies import QueenDep

router = APIRouter(prefix="/v2/keys")


@router.post("/add", status_code=201)
async def add(queen: QueenDep, body: JsonBody[KeySpec]) -> KeyCreated:
    """Create a key for a client; it is shown only this once."""
    return KeyCreated(name=body.name, key=await queen.client_keys.add(body))


@router.post("/set")
async def change(queen: QueenDep, body: JsonBody[KeyChange]) -> KeyInfo:
    """Change what a client's key allows, from its next request on."""
    return await queen.client_keys.change(body)


@router.get("/list")
async def list_keys(queen: QueenDep) -> KeyList:
    """List the keys: what each allows, and what was used with it."""
    return KeyList(keys=queen.client_keys.list())


@router.post("/remove", status_code=204, response_class=Response)
async def remove(queen: QueenDep, body: JsonBody[KeyName]) -> None:
    """Remove a client's key."""
    await queen.client_keys.remove(body.name)
    queen.console.sessions.end_of(body.name)
