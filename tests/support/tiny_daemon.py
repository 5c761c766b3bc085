"""A daemon made of daemonkit and nothing else: what the ground's process tests talk to."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from rbee import lifeline
from rbee.contracts.errors import ErrorCode
from rbee.daemonkit import server, sockets, systemd
from rbee.daemonkit.app import create_app
from rbee.daemonkit.auth import Authenticator
from rbee.daemonkit.drain import Drain
from rbee.daemonkit.json_body import JsonBody
from rbee.daemonkit.sse import DONE, EventStream, encode
from rbee.errors import RbeeError
from rbee.observe import logs

KEY = "tiny-daemon-key"


class CountRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: int = Field(ge=1, le=10)


Drains = list[Drain[str]]
router = APIRouter()


class Count(BaseModel):
    count: int


class Status(BaseModel):
    status: str


@router.get("/health")
async def health() -> Status:
    return Status(status="alive")


@router.post("/count")
async def count(request: Request, body: JsonBody[CountRequest]) -> Count:
    request.app.state.daemon[0].check()
    return Count(count=body.count)


@router.get("/bug")
async def bug() -> Status:
    raise ValueError("secret inner workings")


@router.get("/refused")
async def refused() -> Status:
    raise RbeeError(ErrorCode.ALL_SLOTS_BUSY, "All 4 slots are busy.", details={"slots_total": 4})


@router.get("/stream/{ending}", status_code=200, response_class=EventStream)
async def stream(ending: str) -> EventStream:
    return EventStream(_events(ending))


@router.get("/endless", status_code=200, response_class=EventStream)
async def endless(request: Request) -> EventStream:
    return EventStream(_endless(), until=request.app.state.daemon[0].closed)


async def _events(ending: str) -> AsyncIterator[bytes]:
    try:
        for index in range(3):
            yield encode({"index": index})
            await asyncio.sleep(0.05 if ending != "slow" else 0.5)
        if ending == "error":
            raise RbeeError(ErrorCode.WORKER_CRASHED, "It broke.")
        if ending == "bug":
            raise ValueError("inner workings")
        yield DONE
    finally:
        logging.getLogger(__name__).info("stream closed")


async def _endless() -> AsyncIterator[bytes]:
    index = 0
    while True:
        yield encode({"index": index})
        index += 1
        await asyncio.sleep(0.05)


def main() -> None:
    owner = lifeline.attach()
    logs.configure("tiny", secrets=(KEY,))
    drains: Drains = []

    async def ending() -> str:
        await asyncio.sleep(0.3)
        return "receipt"

    def drain_of() -> Drain[str]:
        drains.append(Drain(ending, name="tiny"))
        return drains[0]

    authenticator = Authenticator("tiny", KEY, open_paths=("/health",))
    app = create_app("tiny", drains, authenticator=authenticator, routers=[router], max_body_bytes=1000)
    port = int(os.environ.get("TINY_PORT", "0"))
    sock = systemd.restored_socket("127.0.0.1", port) or sockets.bind("127.0.0.1", port)
    server.serve(app, sock, drain_of, owner, successor=systemd.store_socket(sock))


if __name__ == "__main__":
    main()
