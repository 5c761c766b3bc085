"""What must not change with time or load: the queen's memory under streams, and how soon a full queue says so."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import quantiles

import psutil

from bench import source
from bench.relay import EVENTS, RATE, STREAMS, measure
from bench.relays import Relay, queen, sourced
from bench.rows import Row

_MINUTES = 10
_WARM_UP_S = 60.0
_GROWTH = 1.05
_FULL_MS = 10.0
_MAX_TASKS = 16
_REFUSALS = 500
_MIB = 1024 * 1024


def relay_memory(_rounds: int) -> Iterator[Row]:
    """Pass streams on for ten minutes; the queen's resident memory at the end beside that after the first minute."""
    with sourced() as (_, hive_port), queen(hive_port) as ours:
        process = psutil.Process(ours.pids[0])
        began = time.monotonic()
        early = 0
        streams = 0
        while time.monotonic() - began < _MINUTES * 60:
            load, _took = measure(ours, streams=STREAMS, events=EVENTS, rate=RATE)
            if load.whole != STREAMS:
                raise RuntimeError(f"{load.whole} of {STREAMS} streams came whole")
            streams += STREAMS
            if not early and time.monotonic() - began > _WARM_UP_S:
                early = process.memory_info().rss
        late = process.memory_info().rss
    print(f"  {streams} streams of {EVENTS} events")
    yield Row("relay_memory_10_min", late / _MIB, early / _MIB, "after a minute", "MiB", f"<={_GROWTH}")


def queue_full(_rounds: int) -> Iterator[Row]:
    """Fill a queen's hands, and see how long each further request waits for its refusal."""
    with sourced() as (_, hive_port), queen(hive_port, max_tasks=_MAX_TASKS) as ours, _full(ours):
        times = []
        connection = http.client.HTTPConnection("127.0.0.1", ours.port, timeout=10)
        for _ in range(_REFUSALS):
            began = time.perf_counter()
            connection.request("POST", "/v1/chat/completions", _body(1), {**ours.headers, **_JSON})
            answer = connection.getresponse()
            answer.read()
            times.append((time.perf_counter() - began) * 1e3)
            if answer.status != 503 or not answer.getheader("Retry-After"):
                raise RuntimeError(f"a full queue answered {answer.status}")
        connection.close()
    yield Row("queue_full_p50", quantiles(times, n=100)[49], _FULL_MS, "promised", "ms", "<=1.0")
    yield Row("queue_full_p99", quantiles(times, n=100)[98], _FULL_MS, "promised", "ms", "<=1.0")


_JSON = {"Content-Type": "application/json"}


def _body(events: int) -> bytes:
    fields = {"model": source.MODEL, "messages": [{"role": "user", "content": "bees"}], "stream": True}
    return json.dumps({**fields, "max_completion_tokens": events, "seed": RATE}).encode()


@contextmanager
def _full(ours: Relay) -> Iterator[None]:
    """Keep as many streams going as the queen takes; they end when their connections do."""
    connections = []
    for _ in range(_MAX_TASKS):
        connection = http.client.HTTPConnection("127.0.0.1", ours.port, timeout=60)
        connection.request("POST", "/v1/chat/completions", _body(100_000), {**ours.headers, **_JSON})
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"a stream that fills the queue was answered with {answer.status}")
        connections.append((connection, threading.Thread(target=_drained, args=(answer,), daemon=True)))
        connections[-1][1].start()
    try:
        yield
    finally:
        for connection, _ in connections:
            if connection.sock is not None:
                connection.sock.shutdown(2)
        for connection, reading in connections:
            reading.join(10)
            connection.close()


def _drained(answer: http.client.HTTPResponse) -> None:
    """Read on, so that nothing piles up anywhere."""
    try:
        while answer.read1(65536):
            pass
    except (OSError, http.client.HTTPException):
        return
