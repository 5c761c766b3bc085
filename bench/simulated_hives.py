"""Many hives in one process, for the benchmark of a large fleet: control channels, and workers that compute nothing.

`python -m bench.simulated_hives PORT HIVES [GPUS]`: hive number N listens at `address(N)`, and its workers are reached
there too. They are on its CPU, or spread over so many GPUs. A worker answers any POST at once with 20 events.
`POST /changes` at 127.0.0.1 with a number has the hives report so many changes of workers a second from then on.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import sys
from typing import Final

import uvloop

from rbee import __version__
from rbee.contracts.control import Heartbeat, Hello, WorkerChanged
from rbee.contracts.devices import Backend, Detection, Device
from rbee.contracts.models import CatalogEntry
from rbee.contracts.references import Provider
from rbee.contracts.workers import WorkerAccess, WorkerInfo, WorkerState

WORKERS_A_HIVE: Final = 10
MODELS: Final = 20
EVENTS: Final = 20
KEY: Final = "bench-key-of-all-simulated-hives"
_SLOTS: Final = 8
_BEAT_S: Final = 2.0
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455
_EVENT: Final = (
    b'data: {"id":"chatcmpl-req-0123456789ab","created":1700000000,"model":"bench","object":"chat.completion.chunk",'
    b'"choices":[{"index":0,"delta":{"content":" bees"},"logprobs":null,"finish_reason":null}]}\n\n'
)


def address(hive: int) -> str:
    """Return the loopback address of a hive."""
    return f"127.1.{hive // 250}.{hive % 250 + 1}"


def model(number: int) -> str:
    """Return the reference of a model."""
    return f"hf:bench/bees-{number:02}:Q4_K_M"


class SimulatedHive:
    """What one hive reports."""

    def __init__(self, number: int, port: int, gpus: int) -> None:
        self._number = number
        self._backend, self._devices = (Backend.CUDA, gpus) if gpus else (Backend.CPU, 1)
        self._url = f"http://{address(number)}:{port}"

    def hello(self) -> bytes:
        """Return its first message."""
        name = "cpu" if self._backend is Backend.CPU else "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"
        devices = [
            Device(backend=self._backend, index=index, name=name, total_bytes=2**36, free_bytes=2**35)
            for index in range(self._devices)
        ]
        models = [
            CatalogEntry(
                id=f"model-{number:012x}",
                provider=Provider.HF,
                reference=model(number),
                local_path=f"/var/lib/rbee/models/bees-{number:02}.Q4_K_M.gguf",
                size_bytes=2**30,
                downloaded_at_unix=1_700_000_000,
            )
            for number in range(MODELS)
        ]
        workers = [self.worker(number, _SLOTS) for number in range(WORKERS_A_HIVE)]
        hello = Hello(
            hive_id=f"bench-hive-{self._number:04}",
            version=__version__,
            detection=Detection(devices=devices),
            models=models,
            workers=workers,
        )
        return hello.model_dump_json().encode()

    def change(self, number: int, free: int) -> bytes:
        """Return the message that a worker has so many free slots."""
        return WorkerChanged(link=self.worker(number, free)).model_dump_json().encode()

    def worker(self, number: int, free: int) -> WorkerAccess:
        """Describe a worker; the models are spread over all of the fleet."""
        name = f"worker-{self._number:06x}{number:06x}"
        worker = WorkerInfo(
            worker_id=name,
            url=self._url,
            model_ref=model((self._number * WORKERS_A_HIVE + number) % MODELS),
            backend=self._backend,
            device=number % self._devices,
            state=WorkerState.IDLE,
            slots_total=_SLOTS,
            slots_available=free,
            pid=1000 + number,
            context_length=4096,
            memory_bytes=2**30,
            started_unix=1_700_000_000.0,
            last_active_unix=1_700_000_000.0,
        )
        return WorkerAccess(worker=worker, api_key=f"{name}-{hashlib.sha256(name.encode()).hexdigest()[:23]}")


class Simulation:
    """All hives, and the channels that a queen has opened to them."""

    def __init__(self, port: int, hives: int, gpus: int) -> None:
        self._hives = {address(number): SimulatedHive(number, port, gpus) for number in range(hives)}
        self._channels: dict[str, asyncio.Transport] = {}
        self._changes = 0.0
        self._changing = asyncio.Event()

    async def serve(self, port: int) -> None:
        """Serve until killed."""
        loop = asyncio.get_running_loop()
        for host in ("127.0.0.1", *self._hives):
            await loop.create_server(lambda: Connection(self), host, port, backlog=512)
        await self._report_changes()

    def open(self, host: str, transport: asyncio.Transport) -> None:
        """Begin a control channel."""
        transport.write(_frame(self._hives[host].hello()))
        self._channels[host] = transport
        self._beat(host, transport)

    def report(self, changes: float) -> None:
        """Report so many changes a second from now on."""
        self._changes = changes
        (self._changing.set if changes else self._changing.clear)()

    def _beat(self, host: str, transport: asyncio.Transport) -> None:
        if transport.is_closing():
            if self._channels.get(host) is transport:
                del self._channels[host]
            return
        transport.write(_frame(Heartbeat().model_dump_json().encode()))
        asyncio.get_running_loop().call_later(_BEAT_S, self._beat, host, transport)

    async def _report_changes(self) -> None:
        """Have the workers, one after the other, report one free slot less or more than before."""
        for turn in itertools.count():
            for number in range(WORKERS_A_HIVE):
                for host, hive in self._hives.items():
                    await self._changing.wait()
                    channel = self._channels.get(host)
                    if channel is not None:
                        channel.write(_frame(hive.change(number, _SLOTS - 1 - turn % 2)))
                    await asyncio.sleep(1 / self._changes)


class Connection(asyncio.Protocol):
    """A connection to a hive or to one of its workers."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._got = b""
        self._is_channel = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._is_channel:  # leases: nobody here minds
            return
        self._got += data
        head, end, rest = self._got.partition(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        named = {name.lower(): value for name, value in fields.items()}
        length = int(named.get(b"content-length", b"0"))
        if not end or len(rest) < length:
            return
        self._got = rest[length:]
        host = self._transport.get_extra_info("sockname")[0]
        if b"sec-websocket-key" in named:
            accept = base64.b64encode(hashlib.sha1(named[b"sec-websocket-key"] + _GUID).digest())
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                b"sec-websocket-accept: %s\r\n\r\n" % accept
            )
            self._is_channel = True
            self._simulation.open(host, self._transport)
        elif host == "127.0.0.1":
            if head.startswith(b"POST"):
                self._simulation.report(float(rest[:length]))
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        else:
            self._transport.write(_ANSWER)


def _frame(text: bytes) -> bytes:
    if len(text) < 126:
        size = bytes([len(text)])
    elif len(text) < 2**16:
        size = b"\x7e" + len(text).to_bytes(2, "big")
    else:
        size = b"\x7f" + len(text).to_bytes(8, "big")
    return b"\x81" + size + text


def _answer() -> bytes:
    chunks = [*[_EVENT] * EVENTS, b"data: [DONE]\n\n"]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


_ANSWER: Final = _answer()

if __name__ == "__main__":
    port, hives, gpus = (*map(int, sys.argv[1:]), 0)[:3]
    uvloop.run(Simulation(port, hives, gpus).serve(port))
