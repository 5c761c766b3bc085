"""A daemon made of daemonkit and nothing else: what the ground's process tests talk to."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from rbee import lifeline
from rbee.contracts.errors import ErrorCode
from rbee.daemonkit import server, systemd
from rbee.daemonkit.app import create_app
from rbee.daemonkit.auth import Gate
from rbee.daemonkit.drain import Drain
from rbee.daemonkit.sse import DONE, EventStream, encode
from rbee.errors import RbeeError
from rbee.observe import logs

KEY = "tiny-daemon-key"


class Wish(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: int = Field(ge=1, le=10)


def routes(drains: list[Drain[str]]) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @router.post("/wish")
    async def wish(body: Wish) -> dict[str, int]:
        drains[0].check()
        return {"count": body.count}

    @router.get("/bug")
    async def bug() -> dict[str, str]:
        raise ValueError("secret inner workings")

    @router.get("/refused")
    async def refused() -> dict[str, str]:
        raise RbeeError(ErrorCode.ALL_SLOTS_BUSY, "All 4 slots are busy.", details={"slots_total": 4})

    @router.get("/stream/{ending}")
    async def stream(ending: str) -> EventStream:
        return EventStream(_events(ending))

    @router.get("/endless")
    async def endless() -> EventStream:
        return EventStream(_endless(), until=drains[0].closed)

    return router


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
    hold = lifeline.hold()
    logs.configure("tiny", secrets=(KEY,))
    drains: list[Drain[str]] = []

    async def ending() -> str:
        await asyncio.sleep(0.3)
        return "receipt"

    def drain_of() -> Drain[str]:
        drains.append(Drain(ending, name="tiny"))
        return drains[0]

    gate = Gate("tiny", KEY, open_paths=("/health",))
    _, app = create_app("tiny", gate=gate, routers=[routes(drains)], max_body_bytes=1000)
    port = int(os.environ.get("TINY_PORT", "0"))
    sock = systemd.kept("127.0.0.1", port) or server.bind("127.0.0.1", port)
    server.serve(app, sock, drain_of, hold, successor=systemd.keep(sock))


if __name__ == "__main__":
    main()
