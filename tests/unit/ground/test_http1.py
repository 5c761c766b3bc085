"""Connections: what a client that hangs up leaves behind."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from typing import Any

import uvicorn

from rbee.daemonkit.http1 import BoundedHttp
from tests.support.waiting import eventually

RESET = struct.pack("ii", 1, 0)


async def _app(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"bees", "more_body": False})


def _ask_and_reset(port: int) -> None:
    """Ask once and hang up without a farewell, with the connection still open for another request."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: bees\r\n\r\n")
        answer = b""
        while not answer.endswith(b"0\r\n\r\n"):
            answer += client.recv(65536)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def test_a_connection_that_was_reset_is_let_go_at_once() -> None:
    """Nothing of it waits for the end of its keep-alive, which a busy daemon would collect by the thousand."""

    async def story() -> None:
        config = uvicorn.Config(
            _app, http=BoundedHttp, log_config=None, lifespan="off", timeout_keep_alive=3600, ws="none"
        )
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            port = listening.getsockname()[1]
            for _ in range(20):
                await asyncio.to_thread(_ask_and_reset, port)
            await asyncio.to_thread(eventually, lambda: not _kept(), within=10, because="all connections are forgotten")
            server.should_exit = True
            await serving

    asyncio.run(story())


def _kept() -> list[BoundedHttp]:
    gc.collect()
    return [kept for kept in gc.get_objects() if isinstance(kept, BoundedHttp)]
