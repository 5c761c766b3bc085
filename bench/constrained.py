"""What a schema costs: our worker held to one beside our worker that is not, in one process."""

from __future__ import annotations

import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, Final

from bench.rows import Row
from bench.servers import Server, ours, running

TOKENS: Final = 100
_SLOTS: Final = 8
_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 40},
        "rating": {"type": "integer", "minimum": 1, "maximum": 5},
        "story": {"type": "string", "minLength": 2000},
    },
    "required": ["title", "rating", "story"],
}
_FORMAT: Final = {"type": "json_schema", "json_schema": {"name": "story", "schema": _SCHEMA}}


def constrained(rounds: int) -> list[Row]:
    """Tokens per second and time to the first token with a schema that was seen before, beside those without one."""
    speeds: dict[tuple[int, bool], list[float]] = {}
    firsts: dict[bool, list[float]] = {True: [], False: []}
    with running(ours(_SLOTS)) as server:
        _ask(server, held=True, tokens=1)
        for number in range(rounds + 1):
            for held in (True, False) if number % 2 else (False, True):
                for streams in (1, _SLOTS):
                    speeds.setdefault((streams, held), []).append(_speed(server, streams, held=held))
                firsts[held] += [_ask(server, held=held, tokens=1)[0] for _ in range(5)]
    rows = []
    for streams in (1, _SLOTS):
        held_speed, free_speed = (median(speeds[streams, held][1:]) for held in (True, False))
        rows.append(Row(f"constrained_tokens_per_s_{streams}", held_speed, free_speed, "without", "tokens/s", ">=0.95"))
    with_, without = (median(firsts[held]) for held in (True, False))
    rows.append(Row("constrained_first_token", with_, without + 0.005, "without, + 5 ms", "s", "<=1.0"))
    return rows


def _speed(server: Server, streams: int, *, held: bool) -> float:
    began = time.perf_counter()
    with ThreadPoolExecutor(streams) as pool:
        counts = list(pool.map(lambda _: _ask(server, held=held, tokens=TOKENS)[1], range(streams)))
    return sum(counts) / (time.perf_counter() - began)


def _ask(server: Server, *, held: bool, tokens: int) -> tuple[float, int]:
    """Run one chat to its end; return the seconds that it took, and how many tokens it has."""
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Write a story about bees, as JSON."}],
        "max_tokens": tokens,
        "temperature": 0,
    }
    if held:
        body["response_format"] = _FORMAT
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=180)
    began = time.perf_counter()
    try:
        headers = {**server.headers, "Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    if "usage" not in answer:
        raise RuntimeError(f"the answer failed: {answer}")
    return time.perf_counter() - began, int(answer["usage"]["completion_tokens"])
