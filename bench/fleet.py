"""What a fleet of 10,000 workers costs the queen: at rest, for each request, in memory, in lists, when it registers."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final
from urllib.parse import quote

import psutil

from bench import simulated_hives
from bench.relays import ask, run_process, until
from bench.rows import Row
from bench.servers import free_port
from rbee.client.queen import HIVES_A_PAGE, ROWS_A_PAGE

HIVES: Final = (1, 100, 1000)
CHANGES_S: Final = {1: 0, 100: 20, 1000: 200}
REQUESTS, CONNECTIONS = 400, 4
REST_S = 5.0
HALF_A_CORE: Final = 50.0
PAUSE_MS: Final = 25.0
_MIB: Final = 1024 * 1024
_NEXT: Final = re.compile(r'{"next":"([^"]+)"')
_SHORT: Final = "bees"
# Long enough that the queen remembers who has read it: each is a conversation of its own.
_LONG: Final = "Conversation {} about bees. " + "They dance in the dark to tell the others where the flowers are. " * 6


@dataclass
class FleetQueen:
    """A queen before so many simulated hives."""

    hives: int
    port: int
    source_port: int
    pid: int
    headers: dict[str, str]
    register_s: float = 0.0
    took_ms: dict[str, list[float]] = field(default_factory=lambda: {"short": [], "long": []})

    @property
    def workers(self) -> int:
        """Return the number of workers."""
        return self.hives * simulated_hives.WORKERS_A_HIVE

    def cpu_s(self) -> float:
        """Return the processor time that it has taken, to the nanosecond where the kernel tells."""
        try:
            threads = Path(f"/proc/{self.pid}/task").iterdir()
            return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
        except OSError:
            times = psutil.Process(self.pid).cpu_times()
            return float(times.user + times.system)

    def rest(self, changes_s: int) -> float:
        """Return the share of a core that it takes at rest, with so many changes a second, in percent."""
        ask(self.source_port, "POST", "/changes", {}, changes_s)
        try:
            before, began = self.cpu_s(), time.perf_counter()
            time.sleep(REST_S)
            return 100 * (self.cpu_s() - before) / (time.perf_counter() - began)
        finally:
            ask(self.source_port, "POST", "/changes", {}, 0)

    def get(self, path: str) -> str:
        """Return what it answers. Raises RuntimeError for nothing."""
        text = ask(self.port, "GET", path, self.headers)
        if not text:
            raise RuntimeError(f"{path} was refused")
        return text


def fleet(rounds: int) -> Iterator[Row]:
    """Put queens before 1, 100 and 1,000 hives of 10 workers; the small fleet is the measure of the large ones."""
    with ExitStack() as stack:
        queens = [stack.enter_context(_running(hives)) for hives in HIVES]
        small, *_, largest = queens
        yield Row("fleet_register_1000", largest.register_s, queens[1].register_s, "100 hives", "s", "")
        for queen in queens:
            share = queen.rest(CHANGES_S[queen.hives])
            yield Row(f"fleet_rest_{queen.workers}", share, HALF_A_CORE, "half a core", "%", "<=1.0")
        _measure_requests(queens, rounds)
        for kind in ("short", "long"):
            cost = {queen.hives: median(queen.took_ms[kind]) for queen in queens}
            for queen in queens[1:]:
                name = f"fleet_request_{kind}_{queen.workers}"
                yield Row(name, cost[queen.hives], cost[small.hives], "10 workers", "ms", "<=1.3")
        for queen in queens[1:]:
            yield Row(f"fleet_memory_{queen.workers}", _memory(queen), _memory(small), "10 workers", "MiB", "")
        yield from _list_rows(largest, rounds)


def _measure_requests(queens: Iterable[FleetQueen], rounds: int) -> None:
    """Measure in turns, so that what else the machine does falls on all alike."""
    number = 0
    for turn in range(2 * rounds + 1):
        for queen in queens:
            idle = queen.rest(0) / 100
            for kind, prompt in (("short", _SHORT), ("long", _LONG)):
                before, began = queen.cpu_s(), time.perf_counter()
                asyncio.run(_send(queen, [prompt.format(number + one) for one in range(REQUESTS)]))
                took = queen.cpu_s() - before - idle * (time.perf_counter() - began)
                number += REQUESTS
                if turn:  # the first opens the connections
                    queen.took_ms[kind].append(took / REQUESTS * 1e3)


async def _send(queen: FleetQueen, prompts: list[str]) -> None:
    """Send requests over a few connections, to one model after the other."""
    waiting = list(enumerate(prompts))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", queen.port)
        while waiting:
            number, prompt = waiting.pop()
            messages = [{"role": "user", "content": prompt}]
            name = simulated_hives.model(number % min(queen.workers, simulated_hives.MODELS))
            body = json.dumps({"model": name, "messages": messages, "stream": True}).encode()
            head = "".join(f"{key}: {value}\r\n" for key, value in queen.headers.items())
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\n{head}Content-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"0\r\n\r\n")
            if answer.count(b"bees") != simulated_hives.EVENTS:
                raise RuntimeError(f"a request for {name} was answered with {answer[:300].decode(errors='replace')}")
        writer.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))


def _list_rows(queen: FleetQueen, rounds: int) -> Iterator[Row]:
    """Read the lists whole and in pages, and see for how long that keeps the queen from everything else."""
    for path, key, limit in (
        ("/v2/hives/list", "hives", HIVES_A_PAGE),
        ("/v2/workers/list", "workers", ROWS_A_PAGE),
    ):
        expected = queen.hives if key == "hives" else queen.workers
        whole = [_pause_ms(queen, partial(_read, queen, path), key, expected) for _ in range(rounds)]
        paged = [_pause_ms(queen, partial(_read, queen, path, limit=limit), key, expected) for _ in range(rounds)]
        yield Row(f"fleet_pause_{key}_pages", min(paged), min(whole), "in one answer", "ms", "")
        yield Row(f"fleet_pause_{key}", min(paged), PAUSE_MS, "limit", "ms", "<=1.0")


def _read(queen: FleetQueen, path: str, limit: int | None = None) -> list[str]:
    """Read a list, in pages where they have a limit."""
    pages = [queen.get(path if limit is None else f"{path}?limit={limit}")]
    while (following := _NEXT.match(pages[-1])) is not None:
        pages.append(queen.get(f"{path}?limit={limit}&after={quote(following[1])}"))
    return pages


def _pause_ms(queen: FleetQueen, read: Callable[[], list[str]], key: str, expected: int) -> float:
    """Return the longest time that the queen took to answer how it is while a list was read, in milliseconds."""
    ended = threading.Event()
    longest = 0.0

    def look() -> None:
        nonlocal longest
        connection = http.client.HTTPConnection("127.0.0.1", queen.port, timeout=30)
        while not ended.is_set():
            began = time.perf_counter()
            connection.request("GET", "/health")
            connection.getresponse().read()
            longest = max(longest, time.perf_counter() - began)
            ended.wait(0.001)
        connection.close()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        pages = read()
    finally:
        ended.set()
        looking.join()
    # Parsed only now, because that would have kept this process from looking.
    count = sum(len(json.loads(page)[key]) for page in pages)
    if count != expected:
        raise RuntimeError(f"the list has {count} rows instead of {expected}")
    return longest * 1e3


def _memory(queen: FleetQueen) -> float:
    return float(psutil.Process(queen.pid).memory_info().rss) / _MIB


@contextmanager
def _running(hives: int) -> Iterator[FleetQueen]:
    """Run simulated hives and a queen that knows them all."""
    port, source_port = free_port(), free_port()
    source = [sys.executable, "-m", "bench.simulated_hives", str(source_port), str(hives)]
    command = [str(Path(sys.executable).with_name("queen-rbee")), "--port", str(port), "--local-hive", "false"]
    with tempfile.TemporaryDirectory(prefix="rbee-bench-") as home, ExitStack() as stack:
        stack.enter_context(run_process(source, source_port, "/health"))
        pid = stack.enter_context(run_process(command, port, "/health", {"RBEE_HOME": home}))
        key = (Path(home) / "secrets" / "api-key").read_text(encoding="utf-8").strip()
        queen = FleetQueen(hives, port, source_port, pid, {"Authorization": f"Bearer {key}"})
        began = time.perf_counter()
        nodes = [
            {
                "node_name": f"node-{number:04}",
                "ssh_host": simulated_hives.address(number),
                "hive_port": source_port,
                "hive_key": simulated_hives.KEY,
            }
            for number in range(hives)
        ]
        if not ask(port, "POST", "/v2/registry/beehives/add-many", queen.headers, {"nodes": nodes}):
            raise RuntimeError("the nodes were not registered")
        until(lambda: json.loads(queen.get("/v2/status"))["workers"] == queen.workers)
        queen.register_s = time.perf_counter() - began
        yield queen
