"""What clients use is counted and shown: real daemons, a fake engine, and a driver that tells what its devices take."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.machine import Machine
from tests.support.nvml import Gpu, Gpus
from tests.support.queens import QueenProcess, machine_with_fake
from tests.support.waiting import eventually

pytestmark = [pytest.mark.process, pytest.mark.B97]

CHAT = "/v1/chat/completions"
HELLO: Any = [{"role": "user", "content": "Bees?"}]
COUNTS = ("requests", "prompt_tokens", "cached_tokens", "answer_tokens")


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path, tokens_per_s=100) as machine:
        machine.tables["models"]["bee"] = f"file://{machine.root / 'model.gguf'}"
        yield machine


def ask(client: httpx.Client, path: str = CHAT, **fields: Any) -> httpx.Response:
    """Ask for five tokens; the answer must be good."""
    response = client.post(path, json={"model": "bee", "messages": HELLO, "max_tokens": 5, **fields})
    assert response.status_code == 200, response.text
    return response


def used(http: httpx.Client, **query: Any) -> dict[str, Any]:
    """Return a report."""
    response = http.get("/v2/usage", params=query)
    assert response.status_code == 200, response.text
    report: dict[str, Any] = response.json()
    return report


def requests_of(queen: QueenProcess, count: int) -> dict[str, Any]:
    """Wait until so many requests are counted, which happens a moment after their answers; return the whole report."""
    return eventually(
        lambda: (report := used(queen.http))["total"]["requests"] == count and report,
        within=10,
        because=f"{count} requests are counted",
    )


def test_each_answer_is_counted_by_client_model_and_day(machine: Machine) -> None:
    """In each dialect, whole and streamed: tokens as its answer says, and time of the device, by the name asked for."""
    queen = QueenProcess(machine)
    alice, bob = queen.client("alice"), queen.client("bob")
    expected = {"alice": 0, "bob": 0}
    count = 0
    for client, name in ((alice, "alice"), (bob, "bob")):
        for path, more in (
            (CHAT, {}),
            ("/v1/messages", {}),
            ("/api/chat", {"stream": False, "options": {"num_predict": 5}}),
            (CHAT, {"stream": True, "stream_options": {"include_usage": True}}),
        ):
            before = used(queen.http, client=name)["total"]
            response = ask(client, path, **more)
            assert ": usage" not in response.text
            count += 1
            requests_of(queen, count)
            after = used(queen.http, client=name)["total"]
            expected[name] += 5
            assert after["answer_tokens"] == expected[name], path
            assert after["prompt_tokens"] > before["prompt_tokens"], path
            assert 0.01 < after["device_seconds"] - before["device_seconds"] < 5, path
    whole = ask(alice).json()["usage"]
    report = requests_of(queen, count + 1)

    assert [(row["client"], row["model"]) for row in report["rows"]] == [("alice", "bee"), ("bob", "bee")]
    assert {row["day"] for row in report["rows"]} <= {
        time.strftime("%Y-%m-%d", time.gmtime(time.time() - ago)) for ago in (0, 120)
    }
    assert {row["joules"] for row in report["rows"]} == {None}
    assert report["total"]["answer_tokens"] == sum(expected.values()) + 5
    assert report["total"]["cached_tokens"] >= whole["prompt_tokens_details"]["cached_tokens"] > 0
    (key, _) = queen.get("/v2/keys/list")["keys"]
    row = report["rows"][0]
    assert (key["requests_today"], key["tokens_today"]) == (
        row["requests"],
        row["prompt_tokens"] + row["answer_tokens"],
    )


def test_requests_at_once_share_the_time_of_the_device(machine: Machine) -> None:
    """What four streams took together is no more than what passed, and most of it."""
    machine.tables["worker"]["slots"] = 4
    queen = QueenProcess(machine)
    queen.task(max_tokens=1)
    requests_of(queen, 1)
    before = used(queen.http)["total"]["device_seconds"]

    began = time.monotonic()
    running = [queen.aside(max_tokens=100) for _ in range(4)]
    for one in running:
        one.ended()
    passed = time.monotonic() - began

    took = requests_of(queen, 5)["total"]["device_seconds"] - before
    assert 0.5 < took <= passed


def test_a_request_that_is_cut_off_pays_for_its_time(machine: Machine) -> None:
    """A client that leaves is counted with what its request took until its slot was free."""
    queen = QueenProcess(machine)
    alice = queen.client("alice")
    with alice.stream(
        "POST", CHAT, json={"model": "bee", "messages": HELLO, "max_tokens": 500, "stream": True}
    ) as response:
        for number, _ in enumerate(response.iter_lines()):
            if number > 60:
                break

    (row,) = requests_of(queen, 1)["rows"]
    assert 0.1 < row["device_seconds"] < 5
    assert 10 < row["answer_tokens"] < 500


def test_a_client_sees_its_own_usage_and_no_other(machine: Machine) -> None:
    """Its report has only itself, whatever it asks; to ask for another needs the right to operate."""
    queen = QueenProcess(machine)
    alice, bob, chief = queen.client("alice"), queen.client("bob"), queen.client("chief", rights=["operate"])
    ask(alice)
    ask(bob)
    ask(bob)
    requests_of(queen, 3)

    assert [(row["client"], row["requests"]) for row in used(alice)["rows"]] == [("alice", 1)]
    assert used(bob, by=["client", "day"], client="bob")["total"]["requests"] == 2
    assert used(bob, by="model")["total"]["requests"] == 2
    assert used(chief)["total"]["requests"] == 3
    refused = alice.get("/v2/usage", params={"client": "bob"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "FORBIDDEN")
    assert "'operate'" in refused.json()["error"]["message"]
    wrong = alice.get("/v2/usage", params={"since": "yesterday"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "since")
    assert "YYYY-MM-DD" in wrong.json()["error"]["message"]


def test_nothing_is_lost_at_an_end_and_little_in_a_crash(machine: Machine) -> None:
    """A queen without any key keeps the operator's usage too; what was written stays when it is killed."""
    queen = QueenProcess(machine)
    ask(queen.http)
    requests_of(queen, 1)
    ask(queen.http)
    queen.running.process.terminate()
    queen.running.process.wait(30)

    queen = QueenProcess(machine)
    assert used(queen.http)["total"]["requests"] == 2
    ask(queen.http)

    def written() -> int:
        with sqlite3.connect(machine.home / "beehives.db") as database:
            return int(database.execute("select sum(requests) from key_usage").fetchone()[0])

    eventually(lambda: written() == 3, within=10, because="it is written without a question for it")
    queen.running.process.kill()
    queen.running.process.wait(30)
    queen = QueenProcess(machine)

    (row,) = used(queen.http, by="client")["rows"]
    assert (row["client"], row["requests"], row["answer_tokens"]) == ("operator", 3, 15)


def test_a_fallback_that_answered_is_counted_by_its_name(machine: Machine) -> None:
    """A declared model counts by the name or preset that was asked for, one that answered in its place by its own."""
    gone = machine.root / "gone.gguf"
    machine.tables["served"] = {
        "small": {"model": "bee", "replicas": 0},
        "big": {
            "model": f"file://{gone}",
            "replicas": 0,
            "fallback": ["small"],
        },
    }
    queen = QueenProcess(machine)
    ask(queen.http, model="small")
    ask(queen.http, model="big")

    assert [(row["model"], row["requests"]) for row in requests_of(queen, 2)["rows"]] == [("small", 2)]


def test_the_energy_of_a_device_is_its_users(machine: Machine, tmp_path: Path) -> None:
    """What a device that tells took while requests ran is shared by them, in the report and in the metrics."""
    gpus = Gpus.build(tmp_path / "driver", Gpu(energy_mj=1_000_000))
    machine.env = gpus.environ()
    queen = QueenProcess(machine)
    alice = queen.client("alice")
    ask(alice)
    eventually(
        lambda: queen.get("/v2/hives/list")["hives"][0]["devices"][0].get("energy_j") == 1000,
        within=10,
        because="the device is known",
    )

    def spent() -> float | None:
        gpus.set(Gpu(energy_mj=int(time.monotonic() * 1_000_000)))
        ask(alice)
        joules: float | None = used(queen.http, client="alice")["total"]["joules"]
        return joules

    joules = eventually(spent, within=40, because="the hive has read the counter twice")

    assert joules
    assert 'rbee_queen_usage_joules_total{client="alice",model="bee"}' in queen.http.get("/metrics").text


def test_the_command_shows_a_table_with_its_total(machine: Machine) -> None:
    """Rows by what is asked, the total last; `--json` is the report; a wrong day is wrong usage."""
    queen = QueenProcess(machine)
    for name, count in (("alice", 2), ("bob", 1)):
        client = queen.client(name)
        for _ in range(count):
            ask(client)
    requests_of(queen, 3)

    table = machine.run("rbee-keeper", "usage", "--by", "client")
    report = json.loads(machine.run("rbee-keeper", "usage", "--json", "--client", "bob").stdout)
    nothing = machine.run("rbee-keeper", "usage", "--until", "2020-01-31", "--since", "2020-01-01")
    wrong = machine.run("rbee-keeper", "usage", "--since", "yesterday")

    lines = [line.split() for line in table.stdout.splitlines()]
    assert lines[0][:3] == ["CLIENT", "REQUESTS", "PROMPT"]
    assert [line[:2] for line in lines[1:]] == [["alice", "2"], ["bob", "1"], ["total", "3"]]
    assert [(row["client"], row["model"], row["requests"]) for row in report["rows"]] == [("bob", "bee", 1)]
    assert report["total"]["requests"] == 1
    assert (nothing.code, nothing.stdout) == (0, "")
    assert "Nothing was used since 2020-01-01" in nothing.stderr
    assert wrong.code == 2
    assert "'yesterday' is neither a date" in wrong.stderr
