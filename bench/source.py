"""Where the streams of the relay benchmark come from: a worker that computes nothing, and its hive.

`python -m bench.source PORT HIVE_PORT`. A request for a chat is answered by `max_completion_tokens` events,
`seed` a second, each written by itself and carrying the time at which it was.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
import time

import uvloop

from rbee import __version__
from rbee.contracts.control import Heartbeat, Hello
from rbee.contracts.devices import Backend, Detection, Device
from rbee.contracts.workers import WorkerAccess, WorkerInfo, WorkerState

MODEL = "bench-model"
KEY = "bench-key-of-worker-and-hive"
SLOTS = 4096
FIRST_AFTER_S = 0.02
_BEAT_S = 2.0
# As long as the chunks of a chat are.
_EVENT = (
    b'data: {"id":"chatcmpl-req-0123456789ab","created":1700000000,"model":"bench-model","object":'
    b'"chat.completion.chunk","t":%.6f,"choices":[{"index":0,"delta":{"content":" bees"},"logprobs":null,'
    b'"finish_reason":null}]}\n\n'
)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455


class Streams(asyncio.Protocol):
    """One connection of the worker."""

    def __init__(self) -> None:
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, end, rest = self._got.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", b"0"))
        if b"transfer-encoding" in fields:  # one request at a time: all there is up to its last chunk
            length = len(rest) if rest.endswith(b"0\r\n\r\n") else len(rest) + 1
        if not end or len(rest) < length:
            return
        self._got = rest[length:]
        if head.startswith(b"GET"):
            body = b'{"status":"ok"}'
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
            return
        if not head.startswith(b"POST"):  # a relay that tries HTTP/2 first
            self._transport.close()
            return
        asked = rest[:length]
        self._left = _number(asked, b'"max_completion_tokens":')
        self._every = 1 / _number(asked, b'"seed":')
        self._transport.write(_HEAD)
        loop = asyncio.get_running_loop()
        self._due = loop.time() + FIRST_AFTER_S
        loop.call_at(self._due, self._next)

    def _next(self) -> None:
        if self._transport.is_closing():
            return
        if not self._left:
            self._chunk(b"data: [DONE]\n\n")
            self._transport.write(b"0\r\n\r\n")
            return
        self._left -= 1
        self._chunk(_EVENT % time.monotonic())
        self._due += self._every
        asyncio.get_running_loop().call_at(self._due, self._next)

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%s\r\n" % (len(data), data))


def _number(text: bytes, name: bytes) -> int:
    return int(text.partition(name)[2].lstrip().split(b",")[0].split(b"}")[0])


async def hive(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a queen the one worker, and then a heartbeat now and then."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    key = next((value for name, value in fields.items() if name.lower() == b"sec-websocket-key"), None)
    if key is None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        writer.close()
        return
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-accept: %s\r\n\r\n" % accept
    )
    worker = WorkerInfo(
        worker_id="bench-worker",
        url=f"http://127.0.0.1:{port}",
        model_ref=MODEL,
        backend=Backend.CPU,
        device=0,
        state=WorkerState.IDLE,
        slots_total=SLOTS,
        slots_available=SLOTS,
    )
    device = Device(backend=Backend.CPU, index=0, name="cpu", total_bytes=2**34, free_bytes=2**34)
    hello = Hello(
        hive_id="bench-hive",
        version=__version__,
        detection=Detection(devices=[device]),
        models=[],
        workers=[WorkerAccess(worker=worker, api_key=KEY)],
    )
    writer.write(_frame(hello.model_dump_json().encode()))
    while not writer.is_closing():
        await asyncio.sleep(_BEAT_S)
        writer.write(_frame(Heartbeat().model_dump_json().encode()))


def _frame(text: bytes) -> bytes:
    size = bytes([len(text)]) if len(text) < 126 else b"\x7e" + len(text).to_bytes(2, "big")
    return b"\x81" + size + text


async def serve(port: int, hive_port: int) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    await loop.create_server(Streams, "127.0.0.1", port, backlog=4096)
    await asyncio.start_server(lambda reader, writer: hive(port, reader, writer), "127.0.0.1", hive_port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
