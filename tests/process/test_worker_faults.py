"""Workers that crash, hang, eat memory: each ends in words, and what crashes every worker is kept out of use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gguf_files import write_gguf
from tests.support.machine import Machine
from tests.support.queens import QueenProcess, ended_well, machine_with_fake, named, parsed
from tests.support.waiting import eventually

pytestmark = pytest.mark.process


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path) as machine:
        yield machine


def failed(queen: QueenProcess, **fields: Any) -> dict[str, Any]:
    """Run a task that must fail; give the error, whether it came as an event or as a plain refusal."""
    response = queen.http.post("/v2/tasks", json=queen.request_body(**fields))
    if response.status_code != 200:
        error: dict[str, Any] = response.json()["error"]
        return {**error, "retry_after": response.headers.get("retry-after")}
    (event,) = named(list(parsed(iter(response.text.splitlines()))), "error")
    told: dict[str, Any] = event["error"]
    return told


def quarantined(queen: QueenProcess) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = queen.get("/v2/workers/list")["quarantined"]
    return rows


def none_left(queen: QueenProcess) -> None:
    eventually(lambda: not queen.workers(), within=10, because="the worker is gone from the list")


@pytest.mark.parametrize(
    ("fake", "hive", "code"),
    [
        ({"load_fails": "exit"}, {}, "WORKER_START_FAILED"),
        ({"load_hangs_at": 0.5}, {"loading_timeout_s": 1}, "LOADING_TIMEOUT"),
    ],
    ids=["crashes while loading", "hangs while loading"],
)
def test_a_model_that_does_not_load_is_quarantined_after_three(
    machine: Machine, fake: dict[str, Any], hive: dict[str, Any], code: str
) -> None:
    """Three ends in a row are told as they are; then the model is refused at once, with the reason and the way out."""
    machine.fake(**fake)
    machine.configure("hive", **hive)
    queen = QueenProcess(machine)

    for _ in range(3):
        assert failed(queen)["code"] == code
        none_left(queen)
    (row,) = eventually(lambda: quarantined(queen), within=5, because="the queen knows of the quarantine")
    refusal = failed(queen)

    assert (row["node"], row["model_ref"], row["crashes"]) == ("localhost", queen.model, 3)
    assert row["reason"].startswith("3 workers crashed in a row, the last one because ")
    assert refusal["code"] == "QUARANTINED"
    assert row["reason"] in refusal["message"]
    assert f"rbee-keeper worker start --node localhost --model {queen.model}" in refusal["hint"]
    assert int(refusal["retry_after"]) > 0
    assert not machine.processes("llm-worker-rbee")
    shown = machine.run("rbee-keeper", "worker", "list")
    assert "is quarantined for another" in shown.stderr


def test_a_quarantine_is_lifted_by_hand_and_by_proof(machine: Machine) -> None:
    """Starting a worker by hand tries once more: a crash puts the quarantine back, an answered request ends it."""
    machine.fake(load_fails="exit")
    queen = QueenProcess(machine)
    for _ in range(3):
        failed(queen)
        none_left(queen)
    eventually(lambda: quarantined(queen), within=5, because="the model is quarantined")
    start = ("rbee-keeper", "worker", "start", "--node", "localhost", "--model", queen.model)

    assert "QUARANTINED" not in machine.run(*start).stderr
    eventually(lambda: quarantined(queen), within=5, because="one more crash is enough")
    machine.tables["worker"]["fake"] = {}
    none_left(queen)
    assert machine.run(*start).code == 0
    assert ended_well(queen.task())

    worker_id = queen.worker()["worker_id"]
    queen.post("/v2/workers/shutdown", {"worker_id": worker_id})
    machine.fake(load_fails="exit")
    machine.environ()
    for _ in range(2):
        assert failed(queen)["code"] == "WORKER_START_FAILED"
        none_left(queen)
    assert not quarantined(queen)


def test_a_quarantine_ends_by_itself(machine: Machine) -> None:
    """After its time a model is tried again without anybody's doing."""
    machine.fake(load_fails="exit")
    machine.configure("hive", quarantine_s=4)
    queen = QueenProcess(machine)
    for _ in range(3):
        failed(queen)
        none_left(queen)
    eventually(lambda: quarantined(queen), within=3, because="the model is quarantined")
    machine.tables["worker"]["fake"] = {}
    machine.environ()

    eventually(lambda: not quarantined(queen), within=10, because="the quarantine is over")
    assert ended_well(queen.task())


def test_a_device_on_which_everything_crashes_is_quarantined(machine: Machine) -> None:
    """Where several models crash the device is kept out of use, and the models are not blamed."""
    machine.fake(load_fails="exit")
    queen = QueenProcess(machine)
    other = f"file://{write_gguf(machine.root / 'other.gguf', name='other')}"

    for model in (queen.model, other, queen.model):
        assert failed(queen, model=model)["code"] == "WORKER_START_FAILED"
        none_left(queen)
    (row,) = eventually(lambda: quarantined(queen), within=5, because="the device is quarantined")

    assert (row["model_ref"], row["backend"], row["device"]) == (None, "cpu", 0)
    assert "3 workers of 2 models" in row["reason"]
    refusal = failed(queen, model=other)
    assert refusal["code"] == "QUARANTINED"
    assert "cpu device 0 is quarantined" in refusal["message"]


def test_a_worker_that_hangs_in_decode_is_replaced_until_that_is_no_use(machine: Machine) -> None:
    """A request without a token ends as WORKER_STALLED; its worker is replaced, until its client is refused."""
    machine.fake(hang_after=0)
    machine.configure("hive", stall_timeout_s=1, health_interval_s=1)
    queen = QueenProcess(machine)

    for _ in range(3):
        error = failed(queen)
        assert error["code"] in ("WORKER_STALLED", "WORKER_CRASHED"), error
        assert "no token" in error["message"]
    (row,) = eventually(lambda: quarantined(queen), within=10, because="the model is kept from its client")

    assert row["client"] == "operator"
    assert "has had no token" in row["reason"]
    assert failed(queen)["code"] == "QUARANTINED"


def test_a_request_that_ended_a_worker_is_not_given_to_another(machine: Machine) -> None:
    """A request that was sent to a worker which then crashed ends with WORKER_CRASHED, and starts no other worker."""
    machine.fake(dies_of="poison")
    queen = QueenProcess(machine)
    assert ended_well(queen.task())  # its connection is kept, and the next request goes out on it

    error = failed(queen, prompt="poison")
    none_left(queen)

    assert error["code"] == "WORKER_CRASHED"
    assert "not retried" in error["hint"]
    assert machine.log("rbee-hive.log").count('"worker started"') == 1


def test_a_client_that_ends_workers_is_kept_from_the_model_and_nobody_else_is(machine: Machine) -> None:
    """After three crashes under one client, direct ones too, it is refused for that model; others go on."""
    machine.fake(dies_of="poison")
    machine.tables["models"]["bee"] = f"file://{machine.root / 'model.gguf'}"
    queen = QueenProcess(machine)
    eve, alice = (
        {"Authorization": f"Bearer {queen.post('/v2/keys/add', {'name': name})['key']}"} for name in ("eve", "alice")
    )

    def ask(client: dict[str, str], text: str, **headers: str) -> httpx.Response:
        body = {"model": "bee", "max_tokens": 3, "messages": [{"role": "user", "content": text}]}
        return queen.http.post("/v1/chat/completions", json=body, headers={**client, **headers})

    for number in range(3):
        assert ask(alice, "hi").status_code == 200
        if number:
            crashed = ask(eve, "poison")
            assert crashed.json()["error"]["code"] == "WORKER_CRASHED"
            assert crashed.headers["x-should-retry"] == "false"
        else:
            sent = ask(eve, "poison", **{"X-Rbee-Direct": "true"})
            with pytest.raises(httpx.TransportError):
                httpx.post(sent.headers["location"], content=sent.request.content, trust_env=False)
        none_left(queen)
    refused = ask(eve, "hi")

    assert refused.json()["error"]["code"] == "QUARANTINED"
    assert "to this key" in refused.json()["error"]["message"]
    assert ask(alice, "hi").status_code == 200
    assert ask(eve, "hi").json()["error"]["code"] == "QUARANTINED"
    assert [(row["client"], row["model_ref"]) for row in quarantined(queen)] == [("eve", queen.model)]
    assert "client eve: " in machine.run("rbee-keeper", "worker", "list").stderr
    start = ("rbee-keeper", "worker", "start", "--node", "localhost", "--model", queen.model)
    assert machine.run(*start).code == 0
    assert ask(eve, "hi").status_code == 200


def test_a_worker_that_eats_memory_is_ended_in_words(machine: Machine) -> None:
    """A worker that holds far more than was expected is ended before the machine is; the request is told why."""
    machine.fake(eats_mb=64, tokens_per_s=20)
    machine.configure("hive", health_interval_s=1)
    queen = QueenProcess(machine)

    error = failed(queen, max_tokens=400)

    assert error["code"] == "WORKER_CRASHED"
    assert "MB, which is more than" in error["message"]
    none_left(queen)


def test_every_stream_ends_in_done_or_an_error(machine: Machine) -> None:
    """Whatever the engine does in the middle of an answer, the stream has an end that says so."""
    queen = QueenProcess(machine)
    endings: dict[str, str] = {}
    for name, fake in {
        "well": {},
        "engine fails": {"fail_after": 3},
        "process dies": {"exit_after": 3},
        "rubbish": {"rubbish": True, "length": 8},
    }.items():
        machine.tables["worker"]["fake"] = fake
        machine.environ()
        events = queen.task(max_tokens=8)
        endings[name] = "done" if ended_well(events) else named(events, "error")[0]["error"]["code"]
        for row in queen.workers():
            queen.http.post("/v2/workers/shutdown", json={"worker_id": row["worker_id"]})
        none_left(queen)

    assert endings == {
        "well": "done",
        "engine fails": "WORKER_CRASHED",
        "process dies": "WORKER_CRASHED",
        "rubbish": "done",
    }
