"""What guessing ahead is worth: our worker with it against ours without, where text repeats and where it does not."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, Final

from bench.rows import Row
from bench.servers import CONTEXT_PER_SLOT, Server, ours, running

GUESSED: Final = 16
TOKENS: Final = 80
_SLOTS: Final = 4
_PLACES: Final = (("bee", "hive"), ("wasp", "nest"), ("ant", "hill"), ("fox", "den"), ("owl", "tree"), ("fish", "pond"))
_LIST: Final = "".join(
    f"{number}. The {name} lives in the {place}.\n" for number, (name, place) in enumerate(_PLACES, 1)
)
# Small models copy best what they have seen copied once.
_PROMPTS: Final[dict[str, dict[str, Any]]] = {
    "repeating": {"prompt": f"{_LIST}\nThe same list again:\n{_LIST}\nThe same list again:\n", "raw": True},
    "ordinary": {"prompt": "What is honey? Explain in detail."},
}


def speculation(rounds: int) -> list[Row]:
    """Tokens per second in all, with and without guesses, at one stream and at four."""
    taken: dict[tuple[str, int, bool], list[float]] = {}
    with (
        running(ours(_SLOTS, CONTEXT_PER_SLOT, "--speculate", str(GUESSED))) as guessing,
        running(ours(_SLOTS)) as plain,
    ):
        for number in range(rounds + 1):
            for kind in _PROMPTS:
                for streams in (1, _SLOTS):
                    servers = ((True, guessing), (False, plain))
                    for guesses, server in servers if number % 2 else reversed(servers):
                        taken.setdefault((kind, streams, guesses), []).append(_speed(server, kind, streams))
    rows = []
    for kind in _PROMPTS:
        for streams in (1, _SLOTS):
            with_, without = (median(taken[kind, streams, guesses][1:]) for guesses in (True, False))
            target = ">=1.2" if kind == "repeating" else ">=0.95"
            rows.append(Row(f"speculate_{kind}_{streams}", with_, without, "without", "tokens/s", target))
    return rows


def _speed(server: Server, kind: str, streams: int) -> float:
    with ThreadPoolExecutor(streams) as pool:
        ends = list(pool.map(lambda _: _ask(server, kind), range(streams)))
    return float(sum(end["total_tokens"] for end in ends) / max(end["duration_ms"] for end in ends) * 1000)


def _ask(server: Server, kind: str) -> dict[str, Any]:
    """Run one request to its end, which has the worker's own counts."""
    body = {**_PROMPTS[kind], "max_tokens": TOKENS, "temperature": 0, "repeat_penalty": 1}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=180)
    try:
        connection.request(
            "POST", server.route, json.dumps(body), {**server.headers, "Content-Type": "application/json"}
        )
        lines = connection.getresponse().read().decode().splitlines()
    finally:
        connection.close()
    ends = [json.loads(line[5:]) for line in lines if line.startswith("data: {")]
    if not ends or not ends[-1].get("done"):
        raise RuntimeError(f"the answer did not end: {lines[-3:]}")
    end: dict[str, Any] = ends[-1]
    return end
