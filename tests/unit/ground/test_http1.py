"""Connections: what a client that hangs up leaves behind, and what the wire of a request can do."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest
import uvicorn

from rbee.daemonkit.connections import ConnectionLimits
from rbee.daemonkit.http1 import BODY_LIMIT_S, HEAD_LIMIT_S, BoundedHttp, connection_of, mark_authenticated
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


@pytest.mark.parametrize("coalesce", [False, True])
def test_a_client_of_http_1_0_gets_no_chunks(coalesce: bool) -> None:
    """For it a streamed body ends with the connection, whichever way it is written, and one of known length as ever."""

    async def app(scope: Any, _receive: Any, send: Any) -> None:
        wire = connection_of(scope)
        if scope["path"] == "/whole":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
            await send({"type": "http.response.body", "body": b"honey", "more_body": False})
            return
        if coalesce:
            wire.coalesce_head()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert wire.write(b"hon")
        await send({"type": "http.response.body", "body": b"ey", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def story() -> None:
        async with _serving(app) as port:
            for path in ("/", "/whole"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(f"GET {path} HTTP/1.0\r\nHost: bees\r\n\r\n".encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
                writer.close()
                assert head.startswith(b"HTTP/1.1 200 OK\r\n")
                assert b"transfer-encoding" not in head
                assert body == b"honey"

    asyncio.run(story())


def test_a_client_that_begins_with_http_2_is_told_to_speak_http_1_1() -> None:
    """It gets a farewell in its own frames and not silence; RFC 9113 calls the reason HTTP_1_1_REQUIRED, 13."""

    async def story() -> None:
        async with _serving(_app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
        assert answer[:9] == bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
        assert answer[9:18] == bytes([0, 0, len(answer) - 18, 7, 0, 0, 0, 0, 0])
        assert answer[18:26] == bytes([0, 0, 0, 0, 0, 0, 0, 13])
        assert b"HTTP/1.1" in answer[26:]

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


REQUEST_TIMEOUT = b"HTTP/1.1 408 Request Timeout\r\n"
SLOW_HEAD = b"GET / HTTP/1.1\r\nHost: be"
SLOW_BODY = b"POST / HTTP/1.1\r\nHost: bees\r\nContent-Length: 9\r\n\r\nhal"


async def _reads(_scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await _app(_scope, receive, send)


@pytest.mark.parametrize(
    ("sent", "limit"),
    [(b"", HEAD_LIMIT_S), (b"\r\n", HEAD_LIMIT_S), (SLOW_HEAD, HEAD_LIMIT_S), (SLOW_BODY, BODY_LIMIT_S)],
    ids=["nothing", "an empty line", "half a head", "half a body"],
)
def test_a_request_that_comes_too_slowly_is_cut_off(sent: bytes, limit: int) -> None:
    """A head has 10 s and a body 60 s; then the client is told so and the connection is closed, not before."""

    async def story() -> None:
        async with _serving(_reads) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            connection = await _one_connection(lambda kept: sent != SLOW_BODY or _has_request(kept))
            for _ in range(limit - 1):
                connection.sweep()
            assert not connection.transport.is_closing()
            connection.sweep()
            connection.sweep()
            assert connection.transport.is_closing()
            assert (await reader.read()).startswith(REQUEST_TIMEOUT)
            writer.close()

    asyncio.run(story())


def test_an_answer_that_takes_long_and_a_quiet_connection_are_not_cut_off() -> None:
    """Who waits for an answer, and who keeps a connection for the next request, is not slow."""
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go_on.wait()
        await _reads(scope, receive, send)

    async def story() -> None:
        async with _serving(app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            connection = await _one_connection(_has_request)
            for _ in range(2 * BODY_LIMIT_S):
                connection.sweep()
            go_on.set()
            assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
            for _ in range(2 * BODY_LIMIT_S):
                connection.sweep()
            writer.write(REQUEST)
            assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
            writer.close()

    asyncio.run(story())


def test_a_body_behind_a_refusal_is_cut_off_as_well() -> None:
    """A client that was answered before its body was whole cannot hold the connection by sending on."""

    async def story() -> None:
        async with _serving(_app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(SLOW_BODY)
            await reader.readuntil(b"0\r\n\r\n")
            writer.write(b"f")
            connection = await _one_connection(lambda kept: kept.timeout_keep_alive_task is None)
            for _ in range(BODY_LIMIT_S + 1):
                connection.sweep()
            assert await reader.read() == b""
            writer.close()

    asyncio.run(story())


def test_connections_that_show_no_key_make_room_for_others() -> None:
    """Where too many are open, the one that has waited longest goes; one that has shown a key stays."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        mark_authenticated(scope)
        await _app(scope, receive, send)

    async def story() -> None:
        async with _serving(app, total=3) as port:
            known_reader, known_writer = await asyncio.open_connection("127.0.0.1", port)
            known_writer.write(REQUEST)
            await known_reader.readuntil(b"0\r\n\r\n")
            strangers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            assert await asyncio.wait_for(strangers[0][0].read(), 10) == b""
            known_writer.write(REQUEST)
            assert (await known_reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200")
            for _, writer in [*strangers, (known_reader, known_writer)]:
                writer.close()

    asyncio.run(story())


@asynccontextmanager
async def _serving(app: Any, *, total: int = 1000) -> AsyncIterator[int]:
    """Serve *app* and give its port."""
    limits = ConnectionLimits(per_address=256, total=total)
    http = cast("type[asyncio.Protocol]", partial(BoundedHttp, limits=limits))
    config = uvicorn.Config(app, http=http, log_config=None, lifespan="off", timeout_keep_alive=3600, ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        yield listening.getsockname()[1]
        server.should_exit = True
        await serving


def _kept() -> list[BoundedHttp]:
    gc.collect()
    return [kept for kept in gc.get_objects() if isinstance(kept, BoundedHttp)]


def _has_request(kept: BoundedHttp) -> bool:
    cycle: object = kept.cycle
    return cycle is not None


async def _one_connection(is_ready: Callable[[BoundedHttp], bool]) -> BoundedHttp:
    """Wait for the server's end of the one connection."""
    found: list[BoundedHttp] = []

    def look() -> bool:
        found[:] = [kept for kept in _kept() if is_ready(kept)]
        return len(found) == 1

    await asyncio.to_thread(eventually, look, within=10, because="the connection is there")
    return found[0]
