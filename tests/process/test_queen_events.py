"""`GET /v2/events`: everything at first, then each change within a second, from wherever a reader was."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.support.machine import Machine
from tests.support.queens import QueenProcess, machine_with_fake
from tests.support.waiting import eventually, slowness

pytestmark = pytest.mark.process


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path, tokens_per_s=50) as machine:
        yield machine


class Reader:
    """Follows the events in a thread; `rows` are as they say, by kind and id, `loads` all layers that were told."""

    def __init__(self, queen: QueenProcess, after: str | None = None) -> None:
        self.rows: dict[tuple[str, str], Any] = {}
        self.names: list[str] = []
        self.loads: list[tuple[str, int]] = []
        self.last_id = ""
        self._headers = {} if after is None else {"Last-Event-ID": after}
        self._queen = queen
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def of(self, kind: str) -> dict[str, Any]:
        """Give the rows of a kind."""
        return {id_: row for (each, id_), row in list(self.rows.items()) if each == kind}

    def close(self) -> None:
        """Leave."""
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        try:
            self._read()
        except httpx.HTTPError:
            if not self._stop.is_set():  # else the queen has ended
                raise

    def _read(self) -> None:
        with self._queen.http.stream("GET", "/v2/events", headers=self._headers) as response:
            assert response.status_code == 200
            name = ""
            for line in response.iter_lines():
                if self._stop.is_set():
                    return
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "id":
                    self.last_id = value
                elif field == "data":
                    self._take(name, json.loads(value))

    def _take(self, name: str, data: dict[str, Any]) -> None:
        for change in data.get("changes", ()):
            key = (change["kind"], change["id"])
            if change["row"] is None:
                del self.rows[key]
            else:
                self.rows[key] = change["row"]
                if change["kind"] == "load":
                    self.loads.append((change["row"]["worker_id"], change["row"]["layers_loaded"]))
        self.names.append(name)


@contextmanager
def reading(queen: QueenProcess, after: str | None = None) -> Iterator[Reader]:
    reader = Reader(queen, after)
    try:
        eventually(lambda: reader.names, within=5, because="the first event came")
        yield reader
    finally:
        reader._stop.set()


def test_a_reader_sees_how_far_a_load_is(machine: Machine) -> None:
    """Layers of the worker that loads, growing, and nothing of it once it serves."""
    machine.fake(load_s=4 * slowness())
    queen = QueenProcess(machine)
    with reading(queen) as reader:
        waiting = queen.aside(max_tokens=2)
        eventually(lambda: len(set(reader.loads)) > 2, within=20, because="the load goes on")
        waiting.ended()
        eventually(lambda: not reader.of("load"), within=2, because="the load has ended")
    assert {worker_id for worker_id, _ in reader.loads} == {queen.worker()["worker_id"]}
    layers = [loaded for _, loaded in reader.loads]
    assert layers == sorted(layers)


def test_a_reader_sees_everything_and_then_each_change(machine: Machine) -> None:
    """Nodes, catalogs, workers, declared models, requests and the queen, as the lists have them, within a second."""
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    with reading(queen) as reader:
        assert reader.names[0] == "snapshot"
        assert reader.of("node")["localhost"]["connected"] is True
        # The hive tells its queen of a new model when it has one, and the reader may be the first by a moment.
        eventually(
            lambda: [model["reference"] for model in reader.of("catalog")["localhost"]] == [queen.model],
            within=2,
            because="the catalog is told",
        )
        assert set(reader.of("worker")) == {queen.worker()["worker_id"]}
        (ended,) = reader.of("task").values()
        assert (ended["state"], ended["client"], ended["tokens"], ended["node"]) == ("done", "operator", 2, "localhost")
        assert reader.of("queen")["queen"]["pid"] == queen.pid
        assert queen.http.headers["Authorization"].removeprefix("Bearer ") not in json.dumps(list(reader.rows.values()))

        queen.http.put("/v2/served/a", json={"model": queen.model}).raise_for_status()
        eventually(lambda: "a" in reader.of("served"), within=2, because="the declaration is told")
        assert reader.of("served")["a"]["state"] == "on demand"

        running = queen.aside(max_tokens=2000)
        running.tokens(1)
        # It may be told before its first token, which is then told with the next look at all requests.
        (task,) = eventually(
            lambda: [row for row in reader.of("task").values() if row["state"] == "running" and "first_token_s" in row],
            within=2,
            because="the request is told, and its first token",
        )
        assert task["first_token_s"] > 0
        eventually(lambda: reader.of("task")[task["id"]]["tokens"] > 20, within=5, because="its tokens are counted")
        queen.http.delete(f"/v2/tasks/{task['id']}").raise_for_status()
        eventually(lambda: reader.of("task")[task["id"]]["state"] == "canceled", within=2, because="its end is told")

        psutil.Process(queen.worker()["pid"]).kill()
        eventually(lambda: not reader.of("worker"), within=3, because="the worker's end is told")
        queen.http.delete("/v2/served/a").raise_for_status()
        eventually(lambda: not reader.of("served"), within=2, because="the end of the declaration is told")


def test_a_reader_that_was_cut_off_goes_on_where_it_was(machine: Machine) -> None:
    """It gets what it missed and not everything again; with an id of another queen it begins anew."""
    queen = QueenProcess(machine)
    queen.task(max_tokens=2)
    with reading(queen) as first:
        eventually(lambda: first.last_id, within=5, because="the snapshot is whole")
        last = first.last_id
    queen.http.put("/v2/served/a", json={"model": queen.model}).raise_for_status()
    with reading(queen, last) as again:
        eventually(lambda: "a" in again.of("served"), within=2, because="what was missed is told")
        assert set(again.names) == {"changes"}
        assert not again.of("node")
    with reading(queen, "0000-1") as anew:
        assert anew.names[0] == "snapshot"
        eventually(lambda: anew.of("node"), within=2, because="everything is told")


def test_waiting_requests_have_their_places(machine: Machine) -> None:
    """Each says how many are before it."""
    machine.configure("hive", slots=1)
    queen = QueenProcess(machine)
    running = queen.aside(max_tokens=2000)
    running.tokens(1)
    waiting = [queen.aside(max_tokens=2, deadline_s=60.0) for _ in range(2)]
    with reading(queen) as reader:

        def places() -> list[tuple[int, int]]:
            rows = reader.of("task").values()
            return sorted((row["position"], row["queue_length"]) for row in rows if "position" in row)

        eventually(lambda: places() == [(1, 2), (2, 2)], within=5, because="both wait")
    (task_id,) = [row["id"] for row in reader.of("task").values() if row["state"] == "running"]
    queen.http.delete(f"/v2/tasks/{task_id}").raise_for_status()
    for each in waiting:
        each.ended()


def test_only_an_operator_reads(machine: Machine) -> None:
    """What runs where, and for whom, is not for a key that may only infer."""
    queen = QueenProcess(machine)
    with queen.client("guest") as client:
        refused = client.get("/v2/events")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "FORBIDDEN")


def test_a_reader_that_does_not_read_is_dropped_with_a_word(machine: Machine) -> None:
    """It costs the queen no more than what is kept for all, and the next event that it gets says that it must anew."""
    queen = QueenProcess(machine)
    where = urlsplit(queen.url)
    assert where.hostname is not None
    key = queen.http.headers["Authorization"]
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(60)
        slow.connect((where.hostname, where.port))
        slow.sendall(
            f"GET /v2/events HTTP/1.1\r\nHost: x\r\nAuthorization: {key}\r\nConnection: close\r\n\r\n".encode()
        )
        slow.recv(100)
        with reading(queen) as other:
            presets = {f"a-{number}": {"system": "x" * 16_000} for number in range(100)}
            body = {"model": queen.model, "presets": presets}
            for number in range(15):
                queen.http.put("/v2/served/a", json={**body, "keep": 100.0 + number}).raise_for_status()
                eventually(
                    lambda number=number: (
                        other.of("served").get("a", {}).get("declared", {}).get("keep")  # type: ignore[misc]
                        == 100.0 + number
                    ),
                    within=5,
                    because="the change is told",
                )
        received = b""
        while data := slow.recv(65536):
            received += data
        assert b"event: dropped" in received[-500:]
