"""A worker's HTTP side in miniature: a real socket that answers what a test scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from rbee.queen.relay.connection import UpstreamConnection
from rbee.queen.relay.pool import UpstreamPool
from rbee.queen.relay.stream import StallGuard, StreamObserver, relay

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"

Script = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request as received, and the means to answer it."""

    def __init__(self, request: bytes, writer: asyncio.StreamWriter, number: int) -> None:
        self.request = request
        self.number = number
        self.writer = writer

    async def write(self, data: bytes) -> None:
        """Send raw bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        """Send one chunk of the body."""
        await self.write(b"%x\r\n%s\r\n" % (len(data), data))

    async def tokens(self, count: int, start: int = 0) -> None:
        """Send token events, one a chunk."""
        for index in range(start, start + count):
            await self.chunk(b'data: {"token":"bee","index":%d}\n\n' % index)

    async def done(self, total: int) -> None:
        """Send the good end."""
        await self.chunk(b'data: {"done":true,"total_tokens":%d,"duration_ms":1}\n\n' % total)
        await self.chunk(b"data: [DONE]\n\n")
        await self.write(END)


class TinyWorker:
    """A server on a free port; `connections` counts how often somebody connected."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.connections = 0
        self.requests: list[bytes] = []
        self.open: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}
        self.lost = asyncio.Event()
        self.url = ""
        self.server: asyncio.Server | None = None

    def stop_listening(self) -> None:
        """Refuse further connections, as the port of a process that has ended does."""
        assert self.server is not None
        self.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer requests on one connection until it ends."""
        self.connections += 1
        self.open[asyncio.current_task()] = writer
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                request = head + await reader.readexactly(length)
                self.requests.append(request)
                await self._script(Exchange(request, writer, len(self.requests)))
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            self.lost.set()
        finally:
            writer.close()
            del self.open[asyncio.current_task()]


@asynccontextmanager
async def tiny_worker(script: Script) -> AsyncIterator[TinyWorker]:
    """Serve *script* on a free port."""
    worker = TinyWorker(script)
    server = await asyncio.start_server(worker.serve, "127.0.0.1", 0)
    worker.server = server
    worker.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield worker
    finally:
        server.close()
        serving = dict(worker.open)
        for writer in serving.values():
            writer.close()
        await asyncio.gather(*(task for task in serving if task), return_exceptions=True)


class Client:
    """Collects what is relayed; `gate` makes it slow, and without `at_once` it must always be waited for."""

    def __init__(self, *, at_once: bool = True) -> None:
        self.received = b""
        self.gate = asyncio.Event()
        self.gate.set()
        self.waited_for = 0
        self.arrived = asyncio.Event()
        self._at_once = at_once

    def write(self, data: bytes) -> bool:
        if not self._at_once or not self.gate.is_set():
            return False
        self.received += data
        self.arrived.set()
        return True

    async def start(self, ignored: bytes = b"") -> None:
        """The head is of no interest here."""

    async def send(self, data: bytes) -> None:
        self.waited_for += 1
        await self.gate.wait()
        self.received += data


async def post(pool: UpstreamPool, worker: TinyWorker) -> UpstreamConnection:
    return await pool.send("POST", worker.url, "/v1/inference", key="k", body=b"{}", request_id="task-1", node="attic")


async def relayed(upstream: UpstreamConnection, client: Client, observer: StreamObserver, *, stall_s: float) -> None:
    """Relay with a guard of its own."""
    await relay(upstream, client, observer, StallGuard(upstream, stall_s))


def with_worker(script: Script, scenario: Callable[[TinyWorker, UpstreamPool], object]) -> None:
    """Run the coroutine function *scenario* against a worker that plays *script*."""

    async def run() -> None:
        async with tiny_worker(script) as worker:
            pool = UpstreamPool(connect_timeout_s=5, answer_timeout_s=5)
            try:
                await asyncio.wait_for(scenario(worker, pool), 20)  # type: ignore[arg-type]
            finally:
                pool.close()

    asyncio.run(run())
