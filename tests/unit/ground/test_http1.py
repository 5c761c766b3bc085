"""Connections: what a client that hangs up leaves behind, and what the wire of a request can do."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from rbee.daemonkit.http1 import BoundedHttp, connection_of
from tests.support.waiting import eventually

RESET = struct.pack("ii", 1, 0)
REQUEST = b"GET /first HTTP/1.1\r\nHost: bees\r\n\r\n"


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
        async with _serving(_app) as port:
            for _ in range(20):
                await asyncio.to_thread(_ask_and_reset, port)
            await asyncio.to_thread(eventually, lambda: not _kept(), within=10, because="all connections are forgotten")

    asyncio.run(story())


def test_a_held_head_leaves_with_the_first_piece_of_its_body() -> None:
    """A reader gets both in one piece, and never a body without its head."""
    go_on = asyncio.Event()

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        wire = connection_of(scope)
        wire.coalesce_head()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-bees", b"yes")]})
        await go_on.wait()
        assert wire.write(b"honey")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def story() -> None:
        async with _serving(app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.2)
            go_on.set()
            answer = await reader.readuntil(b"0\r\n\r\n")
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"x-bees: yes" in head
        assert body == b"5\r\nhoney\r\n0\r\n\r\n"

    asyncio.run(story())


def test_a_held_head_is_not_lost_where_no_body_follows() -> None:
    """An answer that breaks off after its head still shows its status to who reads it."""

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        connection_of(scope).coalesce_head()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def story() -> None:
        async with _serving(app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
            writer.close()

    asyncio.run(story())


def test_a_stream_learns_that_its_client_left_although_another_request_is_there() -> None:
    """One whose successor was sent without waiting for its answer is told too: nothing goes on for nobody."""
    left = asyncio.Event()

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        wire = connection_of(scope)
        wire.on_disconnect(left.set)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not left.is_set():
            wire.write(b"bees")
            await asyncio.sleep(0.01)

    async def story() -> None:
        async with _serving(app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST + REQUEST)
            await reader.readuntil(b"bees")
            writer.close()
            await asyncio.wait_for(left.wait(), 10)

    asyncio.run(story())


def test_who_asks_too_late_learns_at_once_that_the_client_left() -> None:
    """A client may be gone before anybody looks."""
    told = asyncio.Event()

    async def app(scope: Any, receive: Any, _send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        connection_of(scope).on_disconnect(told.set)

    async def story() -> None:
        async with _serving(app) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            await writer.drain()
            writer.close()
            await asyncio.wait_for(told.wait(), 10)

    asyncio.run(story())


@asynccontextmanager
async def _serving(app: Any) -> AsyncIterator[int]:
    """Serve *app* and give its port."""
    config = uvicorn.Config(app, http=BoundedHttp, log_config=None, lifespan="off", timeout_keep_alive=3600, ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        yield listening.getsockname()[1]
        server.should_exit = True
        await serving


def _kept() -> list[BoundedHttp]:
    gc.collect()
    return [kept for kept in gc.get_objects() if isinstance(kept, BoundedHttp)]
