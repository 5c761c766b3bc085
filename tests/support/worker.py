"""Run a real llm-worker-rbee on a free port, with the fake engine unless a test wants the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from rbee.lifeline import Lifeline
from tests.support.waiting import eventually, slowness

KEY = "worker-test-key-0123456789"
START_S = 30.0


@dataclass
class Worker:
    """A worker under test; `told` are the lines that its owner got so far."""

    process: subprocess.Popen[bytes]
    lifeline: Lifeline
    log: Path
    told: list[dict[str, Any]] = field(default_factory=list)
    http: httpx.Client = field(default_factory=httpx.Client)

    def hear(self, within: float = 10.0) -> dict[str, Any] | None:
        """Wait for the next line on the lifeline; None at its end."""
        line = self.lifeline.read(within * slowness())
        if line is not None:
            self.told.append(line)
        return line

    def hear_until(self, key: str, value: object = None, within: float = 10.0) -> dict[str, Any]:
        """Wait for a line that has *key*, with *value* if one is given."""
        while (line := self.hear(within)) is not None:
            if key in line and (value is None or line[key] == value):
                return line
        raise AssertionError(f"the lifeline ended without {key}={value}; heard {self.told}; {self.tail()}")

    def tail(self) -> str:
        """Give the end of the log."""
        return self.log.read_text(errors="replace")[-3000:]

    def json(self, path: str) -> dict[str, Any]:
        """Get a route's JSON."""
        response = self.http.get(path)
        assert response.status_code == 200, response.text
        value = response.json()
        assert isinstance(value, dict)
        return value

    def until_idle(self) -> None:
        """Wait until the model is loaded."""
        eventually(lambda: self.json("/v1/ready")["ready"], within=START_S, because="the model loads")

    def infer(self, **fields: Any) -> list[dict[str, Any]]:
        """Run one request to its end; gives the events, an `error` event as `{"error": ...}`."""
        with self.http.stream("POST", "/v1/inference", json={"prompt": "Bees?", **fields}) as response:
            if response.status_code != 200:
                response.read()
                raise AssertionError(response.text)
            return list(events(response))


def events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    """Read the events of a stream up to `[DONE]` or its end."""
    for line in response.iter_lines():
        if line.startswith("data: "):
            if line == "data: [DONE]":
                return
            yield json.loads(line.removeprefix("data: "))


def text_of(stream: list[dict[str, Any]]) -> str:
    """Join the tokens."""
    return "".join(event["token"] for event in stream if "token" in event)


@contextmanager
def worker(
    tmp_path: Path, *options: str, model: Path | None = None, fake: dict[str, Any] | None = None, announce: bool = True
) -> Iterator[Worker]:
    """Start a worker and end it; with *announce*, wait until its port is bound."""
    lifeline = Lifeline()
    log = tmp_path / "worker.log"
    env = {**os.environ, **lifeline.env(), "RBEE_WORKER_API_KEY": KEY, "RBEE_WORKER_PORT": "0"}
    if model is None:
        env |= {"RBEE_WORKER_ENGINE": "fake", "RBEE_WORKER_FAKE": json.dumps(fake or {})}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "rbee.worker", "--model-path", str(model or "fake.gguf"), *options],
            env=env,
            pass_fds=(lifeline.child_fd,),
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            cwd=Path(__file__).parents[2],
        )
    lifeline.spawned()
    running = Worker(process, lifeline, log)
    try:
        if announce:
            port = running.hear_until("port", within=START_S)["port"]
            running.http = httpx.Client(
                base_url=f"http://127.0.0.1:{port}",
                headers={"Authorization": f"Bearer {KEY}"},
                timeout=30 * slowness(),
                trust_env=False,
            )
        yield running
    finally:
        running.http.close()
        process.kill()
        process.wait(10)
        lifeline.close()
    text = log.read_text(errors="replace")
    assert "BUG" not in text, running.tail()
    assert "py.warnings" not in text, running.tail()
