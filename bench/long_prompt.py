"""How long a running stream waits for its next token while somebody else's long prompt is read.

Measured with and without the time for which the machine's own host withheld a processor: on the machines of
RESULTS.md that is 100 ms once or twice in ten seconds, which is six usual gaps.
"""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable
from statistics import median

from bench.rows import Row
from bench.servers import Server, ours, running, theirs
from bench.stolen import Stolen

PROMPT_WORDS = 1500  # of one token each
STREAMS = 3
CONTEXT = 2048
_TOKENS = 400
_BEFORE = 40


def long_prompt(rounds: int) -> list[Row]:
    """Return the largest gap between tokens while a prompt of 1,500 tokens is read, in multiples of the usual one."""
    gaps: dict[str, tuple[float, float]] = {}
    for name, launch in (("ours", ours), ("theirs", theirs)):
        with running(launch(2 * STREAMS + 1, CONTEXT)) as server:  # those of the last round may still be ending
            found = [_widest(server, number) for number in range(rounds)]
            gaps[name] = median(own for own, _ in found), median(every for _, every in found)
    (mine, mine_in_all), (peer, peer_in_all) = gaps["ours"], gaps["theirs"]
    return [
        Row("long_prompt_gap", mine, 3.0, "limit", "x usual", "<=1.0"),
        Row("long_prompt_gap", mine, peer, "llama-server", "x usual", ""),
        Row("long_prompt_gap_with_stolen", mine_in_all, peer_in_all, "llama-server", "x usual", ""),
    ]


def _widest(server: Server, salt: int) -> tuple[float, float]:
    """Run streams, let one more begin with the long prompt, and compare their gaps before and meanwhile.

    Gives the widest gap without what the host took of it, and the widest with that.
    """
    came: list[list[float]] = [[] for _ in range(STREAMS)]
    over = threading.Event()
    bodies = [_body(server, f"Story {salt}-{number}: bees", _TOKENS) for number in range(STREAMS)]
    reading = [
        threading.Thread(target=_read, args=(server, body, times, over))
        for body, times in zip(bodies, came, strict=True)
    ]
    for thread in reading:
        thread.start()
    with Stolen() as stolen:
        _until(lambda: all(len(times) > _BEFORE for times in came))
        began = time.monotonic()
        first: list[float] = []
        words = " ".join(f"bee {salt} hive {number}" for number in range(PROMPT_WORDS // 8))
        _read(server, _body(server, words, 1), first, threading.Event())
        ended = first[0] if first else time.monotonic()
        over.set()
        for thread in reading:
            thread.join()
    usual, meanwhile, own = [], [], []
    for times in came:
        for before, after in itertools.pairwise(times):
            if after <= began:
                usual.append(after - before)
            elif before < ended:
                meanwhile.append(after - before)
                own.append(after - before - stolen.seconds(before, after))
    return max(own) / median(usual), max(meanwhile) / median(usual)


def _body(server: Server, prompt: str, tokens: int) -> bytes:
    return json.dumps(server.request(prompt, tokens=tokens, seed=1)).encode()


def _read(server: Server, body: bytes, times: list[float], over: threading.Event) -> None:
    """Note when each token comes, until there is enough."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        connection.request("POST", server.route, body, {**server.headers, "Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{server.route}: {answer.status} {answer.read()[:500]!r}")
        while not over.is_set() and (line := answer.readline()):
            if b'"token":' in line or b'"content":"' in line:
                times.append(time.monotonic())
    finally:
        connection.close()


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        if time.monotonic() > deadline:
            raise RuntimeError("the streams did not begin")
        time.sleep(0.01)
