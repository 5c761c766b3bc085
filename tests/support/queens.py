"""A real queen with a real local hive and fake engines, on a machine of its own."""

from __future__ import annotations

import json
import math
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.commands import Running
from tests.support.gguf_files import write_gguf
from tests.support.machine import Machine
from tests.support.waiting import eventually, slowness

Event = tuple[str, Any]


_clients: defaultdict[Machine, list[httpx.Client]] = defaultdict(list)


class QueenProcess:
    """One `queen-rbee`, started and serving. `model` is a file that the fake engine takes."""

    def __init__(self, machine: Machine, *arguments: str) -> None:
        self.machine = machine
        self.running: Running = machine.start("queen-rbee", *arguments)
        self.url = f"http://127.0.0.1:{machine.queen_port}"
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=60 * slowness())
        _clients[machine].append(self.http)
        eventually(self._serves, within=20, because="the queen serves")
        self.http.headers["Authorization"] = f"Bearer {(machine.home / 'secrets' / 'api-key').read_text().strip()}"
        path = machine.root / "model.gguf"
        self.model = f"file://{path if path.exists() else write_gguf(path)}"

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self.running.process.pid

    def get(self, path: str, **params: Any) -> Any:
        """Ask a route that must answer well."""
        response = self.http.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, path: str, body: Any = None) -> Any:
        """Post to a route that must answer well."""
        response = self.http.post(path, json=body)
        assert response.is_success, response.text
        return response.json() if response.content else None

    def refused(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """Ask a route that must refuse; give the status and the error."""
        response = self.http.request(method, path, json=body)
        assert response.status_code >= 400, response.text
        return response.status_code, response.json()["error"]

    def task(self, **fields: Any) -> list[Event]:
        """Run a task to its end; give its events."""
        with self.streaming("/v2/tasks", self.request_body(**fields)) as events:
            return list(events)

    def request_body(self, **fields: Any) -> dict[str, Any]:
        """Give the body of a task."""
        return {"model": self.model, "prompt": "hello", "node": "localhost", "max_tokens": 5, **fields}

    @contextmanager
    def streaming(
        self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> Iterator[Iterator[Event]]:
        """Read a stream as it comes; leaving the block is what a client does that goes away."""
        with self.http.stream("POST", path, json=body, headers=headers) as response:
            if response.status_code != 200:
                response.read()
                raise AssertionError(response.text)
            yield parsed(response.iter_lines())

    def aside(self, *, headers: dict[str, str] | None = None, **fields: Any) -> Aside:
        """Run a task in a thread."""
        return Aside(self, fields, headers)

    def client(self, name: str, **fields: Any) -> httpx.Client:
        """Make a key for a client, and an HTTP client that sends it."""
        key = self.post("/v2/keys/add", {"name": name, **fields})["key"]
        headers = {"Authorization": f"Bearer {key}"}
        client = httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=60 * slowness())
        _clients[self.machine].append(client)
        return client

    def workers(self) -> list[dict[str, Any]]:
        """List the workers."""
        rows: list[dict[str, Any]] = self.get("/v2/workers/list")["workers"]
        return rows

    def worker(self) -> dict[str, Any]:
        """Give the only worker."""
        (row,) = self.workers()
        return row

    def all_idle(self) -> bool:
        """Tell whether every slot of every worker is free."""
        return all(row["slots_available"] == row["slots_total"] > 0 for row in self.workers())

    def hive(self) -> psutil.Process:
        """Give the local hive's process."""
        return self.machine.process("rbee-hive")

    def _serves(self) -> bool:
        code = self.running.process.poll()
        if code is not None:
            raise RuntimeError(f"the queen ended with {code}: {self.running.stderr.read_text()}")
        try:
            return self.http.get("/health").status_code == 200
        except httpx.TransportError:
            return False


class Aside:
    """A task that runs while the test goes on; its events can be looked at as they come."""

    def __init__(self, queen: QueenProcess, fields: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self.events: list[Event] = []
        self.placed_at = math.inf
        self.broken: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(queen, fields, headers), daemon=True)
        self._thread.start()

    def tokens(self, at_least: int) -> None:
        """Wait for that many tokens."""
        eventually(lambda: count(self.events) >= at_least, within=20, because=f"{at_least} tokens came")

    def saw(self, name: str) -> Any:
        """Wait for an event of that name; give its data."""
        return eventually(lambda: named(self.events, name), within=20, because=f"an event '{name}' came")[0]

    def ended(self) -> list[Event]:
        """Wait for the end of the stream; give all events."""
        self._thread.join(60 * slowness())
        assert not self._thread.is_alive(), self.events
        return self.events

    def _run(self, queen: QueenProcess, fields: dict[str, Any], headers: dict[str, str] | None) -> None:
        try:
            with queen.streaming("/v2/tasks", queen.request_body(**fields), headers) as events:
                for event in events:
                    self.events.append(event)
                    if event[0] == "placed":
                        self.placed_at = time.monotonic()
        except (httpx.TransportError, AssertionError) as error:
            self.broken = error


def parsed(lines: Iterator[str]) -> Iterator[Event]:
    """Give the events of a stream: (name, data), data parsed where it is JSON."""
    name = "message"
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            text = line.removeprefix("data: ")
            yield name, text if text == "[DONE]" else json.loads(text)
            name = "message"


def named(events: list[Event], name: str) -> list[Any]:
    """Give the data of all events of a name."""
    return [data for event, data in events if event == name]


def count(events: list[Event]) -> int:
    """Count the tokens."""
    return sum(1 for data in named(events, "message") if "token" in data)


def ended_well(events: list[Event]) -> bool:
    """Tell whether a stream ended with `done` and `[DONE]`."""
    return events[-1] == ("message", "[DONE]") and events[-2][1].get("done") is True


def told(events: list[Event]) -> str:
    """Give the narration as one text."""
    return "\n".join(line["human"] for line in named(events, "narration"))


@contextmanager
def machine_with_fake(root: Path, **fake: Any) -> Iterator[Machine]:
    """Make a machine whose workers compute nothing."""
    machine = Machine(root)
    machine.tables["worker"] = {"engine": "fake", "fake": fake}
    try:
        yield machine
        for name, text in machine.logs().items():
            assert "BUG" not in text, f"{name} tells of a bug:\n{text}"
            assert "py.warnings" not in text, f"{name} was warned by a library:\n{text}"
            assert "Traceback" not in text, f"{name} holds a traceback:\n{text}"
    finally:
        for client in _clients.pop(machine, []):
            client.close()
        machine.close()
