"""A real hive of its own for a test, with stand-in workers, on free ports, below a home of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from rbee.contracts.control import HIVE_MESSAGE, HiveMessage
from rbee.lifeline import Lifeline
from tests.support.waiting import eventually, slowness

KEY = "a-key-for-the-hive-of-a-test"
STAND_IN_WORKER = Path(__file__).with_name("stand_in_worker.py")
START_S = 60


class HiveProcess:
    """One `rbee-hive`, started and announced.

    Args:
        home: its RBEE_HOME.
        env: more environment; what begins with `STAND_IN_` steers the stand-in workers.
        settings: of the hive, such as `idle_timeout_s=1`.
    """

    def __init__(self, home: Path, *, env: dict[str, str] | None = None, **settings: Any) -> None:
        self.home = home
        self.log = home / "logs" / "rbee-hive.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._lifeline = Lifeline()
        chosen = {
            "port": 0,
            "first_worker_port": 0,
            "worker_binary": STAND_IN_WORKER,
            "spare_worker": False,
            **settings,
        }
        variables = {f"RBEE_HIVE_{name.upper()}": str(value) for name, value in chosen.items()}
        with self.log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rbee.hive"],
                env={
                    **os.environ,
                    "RBEE_HOME": str(home),
                    "RBEE_HIVE_API_KEY": KEY,
                    **variables,
                    **(env or {}),
                    **self._lifeline.env(),
                },
                pass_fds=(self._lifeline.child_fd,),
                stderr=stderr,
                stdout=stderr,
                cwd=Path(__file__).parents[2],
            )
        self._lifeline.spawned()
        try:
            self.announced = self._lifeline.read(START_S * slowness())
        except TimeoutError:
            self.kill()
            raise AssertionError(f"no hive within {START_S} s: {self.log.read_text()}") from None
        self.port = (self.announced or {}).get("port", 0)
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False, timeout=40 * slowness()
        )

    def get(self, path: str, **params: Any) -> Any:
        """Ask a route that must answer well."""
        response = self.http.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, body: Any = None) -> Any:
        """Post to a route that must answer well."""
        response = self.http.post(path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def refused(self, path: str, body: Any = None) -> dict[str, Any]:
        """Post to a route that must refuse; give the error."""
        response = self.http.post(path, json=body)
        assert response.status_code >= 400, response.text
        error: dict[str, Any] = response.json()["error"]
        return error

    def spawn(self, model: str, **fields: Any) -> dict[str, Any]:
        """Start a worker; give its link."""
        link: dict[str, Any] = self.post("/v1/workers/spawn", {"model": model, **fields})
        return link

    def workers(self) -> list[dict[str, Any]]:
        """List the workers."""
        rows: list[dict[str, Any]] = self.get("/v1/workers/list")["workers"]
        return rows

    def serving(self, worker_id: str) -> dict[str, Any]:
        """Wait until a worker serves; give its row."""

        def found() -> dict[str, Any] | None:
            rows = [row for row in self.workers() if row["worker_id"] == worker_id]
            return rows[0] if rows and rows[0]["state"] in ("idle", "busy") else None

        return eventually(found, within=15, because=f"{worker_id} serves") or {}

    def stream(self, path: str, into: list[tuple[str, Any]] | None = None, **params: Any) -> list[tuple[str, Any]]:
        """Read a stream to its end: (event, data) pairs, data parsed where it is JSON; put *into* as they come."""
        events = [] if into is None else into
        name = "message"
        with self.http.stream("GET", path, params=params) as response:
            for line in response.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    text = line.removeprefix("data: ")
                    events.append((name, text if text == "[DONE]" else json.loads(text)))
                    name = "message"
        return events

    @contextmanager
    def queen(self) -> Iterator[Queen]:
        """Connect as a queen does."""
        headers = {"Authorization": f"Bearer {KEY}"}
        url = f"ws://127.0.0.1:{self.port}/v1/control"
        with connect(url, additional_headers=headers, proxy=None) as channel:
            yield Queen(channel)

    def logged(self) -> list[dict[str, Any]]:
        """Read the hive's log."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def on_exit(self, worker_id: str, act: Callable[[], None]) -> None:
        """Do something, in a thread, as soon as a worker's process has ended."""
        (pid,) = [row["pid"] for row in self.workers() if row["worker_id"] == worker_id]

        def watch() -> None:
            eventually(lambda: not alive(pid), within=30, because="the worker ends")
            act()

        threading.Thread(target=watch, daemon=True).start()

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait(10)

    def terminate(self) -> int:
        """Ask it to end; give its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(40 * slowness())

    def close(self) -> None:
        """End whatever is left."""
        self.http.close()
        self._lifeline.close()
        self.process.kill()
        self.process.wait(10)


class Queen:
    """The queen's end of a control channel."""

    def __init__(self, channel: ClientConnection) -> None:
        self.channel = channel

    def lease(self) -> None:
        """Say that the queen lives."""
        self.channel.send('{"kind": "lease", "queen_id": "queen-of-a-test"}')

    def next(self, within: float = 10) -> HiveMessage:
        """Wait for the next message that is not a beat, and say meanwhile that the queen lives."""
        deadline = time.monotonic() + within * slowness()
        while time.monotonic() < deadline:
            self.lease()
            try:
                message = HIVE_MESSAGE.validate_json(self.channel.recv(1))
            except TimeoutError:
                continue
            if message.kind != "beat":
                return message
        raise AssertionError(f"no message from the hive within {within} s")

    def until_closed(self, within: float) -> float:
        """Read, and say nothing, until the hive hangs up; give the seconds that took."""
        began = time.monotonic()
        try:
            while True:
                self.channel.recv(max(began + within * slowness() - time.monotonic(), 0))
        except ConnectionClosed:
            return time.monotonic() - began

    def until(self, kind: str, within: float = 10) -> Any:
        """Wait for the next message of a kind."""
        while (message := self.next(within)).kind != kind:
            pass
        return message


def alive(pid: int) -> bool:
    """Tell whether a process lives; one that only waits to be reaped does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


StartHive = Callable[..., HiveProcess]
"""Start a hive: (home="home", *, fails=False, env=None, **settings)."""


def starting_hives(root: Path) -> Iterator[StartHive]:
    """Give a `StartHive` whose hives, with homes below *root*, are all ended with the test."""
    started: list[HiveProcess] = []

    def start(home: str = "home", *, fails: bool = False, **more: Any) -> HiveProcess:
        hive = HiveProcess(root / home, **more)
        started.append(hive)
        assert fails or hive.port, hive.log.read_text()
        return hive

    yield start
    for hive in started:
        hive.close()
