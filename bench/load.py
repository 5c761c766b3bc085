"""Load a server with streams at once and count what comes, with a client light enough not to be measured itself."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from statistics import median

from bench.servers import Server

_ROUND_WITHIN_S = 180.0


@dataclass(frozen=True, slots=True)
class Round:
    """What a number of streams at once gave: tokens per second in all, and the median time to the first token."""

    tokens_per_s: float
    first_token_s: float


@dataclass(frozen=True, slots=True)
class _Stream:
    tokens: int
    first_s: float


def measure(server: Server, *, streams: int, tokens: int, salt: int) -> Round:
    """Run *streams* chats at once, each of about *tokens* tokens. *salt* makes the prompts new, so no cache helps."""

    async def run() -> tuple[list[_Stream], float]:
        start = time.perf_counter()
        done = await asyncio.wait_for(
            asyncio.gather(
                *(_stream(server, _prompt(salt, number), tokens, salt + number) for number in range(streams))
            ),
            _ROUND_WITHIN_S,
        )
        return done, time.perf_counter() - start

    done, took = asyncio.run(run())
    return Round(sum(stream.tokens for stream in done) / took, median(stream.first_s for stream in done))


def _prompt(salt: int, number: int) -> str:
    return f"Story {salt * 100 + number}: write a long story about a bee who leaves her hive and meets many animals."


async def _stream(server: Server, prompt: str, tokens: int, seed: int) -> _Stream:
    body = json.dumps(server.request(prompt, tokens=tokens, seed=seed)).encode()
    headers = {**server.headers, "Content-Type": "application/json", "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        start = time.perf_counter()
        writer.write(f"POST {server.route} HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}\r\n".encode() + body)
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"{server.route}: {status!r} {await reader.read(1000)!r}")
        first, counted, promised = 0.0, 0, None
        # Each event is one line of its own; chunk sizes and empty lines in between are skipped.
        while line := await reader.readline():
            if not line.startswith(b"data:"):
                continue
            if line.strip() == b"data: [DONE]":
                break
            event = json.loads(line[5:])
            if "error" in event:
                raise RuntimeError(f"{server.route}: {event}")
            if _has_text(event):
                counted += 1
                first = first or time.perf_counter() - start
            promised = _total(event) or promised
        if promised is None:
            raise RuntimeError(f"{server.route}: the stream ended without its count of tokens")
        return _Stream(promised, first)
    finally:
        writer.close()


def _has_text(event: dict[str, object]) -> bool:
    if "token" in event:
        return True
    choices = event.get("choices")
    return bool(isinstance(choices, list) and choices and choices[0].get("delta", {}).get("content"))


def _total(event: dict[str, object]) -> int | None:
    """Read the server's own count of tokens at the end: ours in `done`, llama-server's in `timings`."""
    if event.get("done"):
        return int(str(event["total_tokens"]))
    timings = event.get("timings")
    return int(timings["predicted_n"]) if isinstance(timings, dict) else None
