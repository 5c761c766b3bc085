"""What passing a stream on costs: processor time for each event, time to the first one, and many streams at once."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median

from bench import source
from bench.relays import Relay, all_relays
from bench.rows import Row

STREAMS, EVENTS, RATE = 64, 100, 50
FIRST_EVENTS, FIRST_ROUNDS = 2, 30  # to the first event is short, and varies
MANY_STREAMS, MANY_EVENTS, MANY_RATE = 1000, 20, 4
ADDED_MS = 5.0
_WITHIN_S = 120.0


@dataclass
class Load:
    """What the clients saw: seconds to the first event, delays of all, streams that ended well."""

    first_s: list[float] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)
    whole: int = 0


class Client(asyncio.Protocol):
    """One stream, read with as little effort as can be, so that the client does not slow the relay down."""

    def __init__(self, load: Load, request: bytes, ended: asyncio.Future[None]) -> None:
        self._load = load
        self._request = request
        self._ended = ended
        self._first = True
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._began = time.monotonic()
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        pieces = (self._tail + data).split(b'"t":')
        self._tail = b""
        for piece in pieces[1:]:
            sent = piece.partition(b",")
            if not sent[1]:
                self._tail = b'"t":' + piece
                break
            if self._first:
                self._load.first_s.append(now - self._began)
                self._first = False
            self._load.delays_s.append(now - float(sent[0]))
        if b"[DONE]" in data:
            self._load.whole += 1
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if not self._ended.done():
            self._ended.set_result(None)


def measure(relay: Relay, *, streams: int, events: int, rate: int) -> tuple[Load, float]:
    """Run streams at once through a relay; gives what the clients saw and the relay's processor time."""

    async def run() -> Load:
        loop = asyncio.get_running_loop()
        load = Load()
        body = {"model": source.MODEL, "messages": [{"role": "user", "content": "bees"}], "stream": True}
        content = json.dumps({**body, "max_completion_tokens": events, "seed": rate}).encode()
        headers = "".join(f"{name}: {value}\r\n" for name, value in relay.headers.items())
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n{headers}"
        request = f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content
        ends = [loop.create_future() for _ in range(streams)]
        for end in ends:
            await loop.create_connection(lambda end=end: Client(load, request, end), "127.0.0.1", relay.port)  # type: ignore[misc]
        await asyncio.wait(ends, timeout=_WITHIN_S)
        return load

    before = relay.cpu_s()
    load = asyncio.run(run())
    return load, relay.cpu_s() - before


def relays(rounds: int) -> list[Row]:
    """Pass 64 streams on, each relay in turn."""
    cpu: dict[str, list[float]] = {}
    first: dict[str, list[float]] = {}
    with ExitStack() as stack:
        found = all_relays(stack)
        for number in range(rounds + 1):
            for name, relay in found.items():
                load, took = measure(relay, streams=STREAMS, events=EVENTS, rate=RATE)
                if load.whole != STREAMS:
                    raise RuntimeError(f"{name}: {load.whole} of {STREAMS} streams came whole")
                if number:  # the first only warms up
                    cpu.setdefault(name, []).append(took / (STREAMS * EVENTS) * 1e6)
        for _ in range(FIRST_ROUNDS):
            for name, relay in found.items():
                load, _ = measure(relay, streams=STREAMS, events=FIRST_EVENTS, rate=RATE)
                first.setdefault(name, []).append(median(load.first_s) * 1e3)
        many, _ = measure(found["ours"], streams=MANY_STREAMS, events=MANY_EVENTS, rate=MANY_RATE)
    added = {name: median(times) - median(first["source"]) for name, times in first.items()}
    rows = [
        Row("relay_cpu_per_event", median(cpu["ours"]), median(cpu[peer]), peer, "us", target)
        for peer, target in (("sglang-router", "<=1.0"), ("nginx", ""))
        if peer in cpu
    ]
    rows += [
        Row("relay_first_token_added", added["ours"], added[peer], peer, "ms", "")
        for peer in ("sglang-router", "nginx")
        if peer in added
    ]
    rows.append(Row("relay_first_token_added", added["ours"], ADDED_MS, "limit", "ms", "<=1.0"))
    rows.append(Row("relay_1000_streams_whole", many.whole, MANY_STREAMS, "all", "streams", ">=1.0"))
    return rows
