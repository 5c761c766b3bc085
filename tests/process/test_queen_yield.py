"""Devices of nodes are yielded through the queen: what runs ends, what waits goes elsewhere or waits, all by fakes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.machine import Machine
from tests.support.nvml import Gpus
from tests.support.queens import QueenProcess, count, ended_well, machine_with_fake, named, told
from tests.support.waiting import eventually, slowness

pytestmark = [pytest.mark.process, pytest.mark.B90]


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path, tokens_per_s=20) as machine:
        yield machine


def give_away(queen: QueenProcess, **fields: Any) -> dict[str, Any]:
    """Yield the devices of the machine; give the receipt."""
    receipt: dict[str, Any] = queen.post("/v2/hives/yield", {"node": "localhost", **fields})
    return receipt


def take_back(queen: QueenProcess) -> list[dict[str, Any]]:
    """Resume all devices of the machine; give those that were yielded."""
    devices: list[dict[str, Any]] = queen.post("/v2/hives/resume", {"node": "localhost"})["devices"]
    return devices


def completion(queen: QueenProcess, **fields: Any) -> httpx.Response:
    """Ask as a client of the OpenAI interface does."""
    body = {"model": queen.model, "prompt": "hello", "max_tokens": 3, **fields}
    return queen.http.post("/v1/completions", json=body, timeout=120 * slowness())


def test_what_runs_ends_and_what_comes_waits(machine: Machine) -> None:
    """A running request gets all its tokens; one of a client waits until the device is back; a task is refused."""
    queen = QueenProcess(machine)
    running = queen.aside(max_tokens=60)
    running.tokens(at_least=1)

    (device,) = give_away(queen)["devices"]

    assert ended_well(running.ended())
    assert count(running.events) == 60
    assert [receipt["requests_stopped"] for receipt in device["workers"]] == [0]
    assert device["workers"][0]["memory_returned"] is True
    assert queen.workers() == []
    status, refused = queen.refused("POST", "/v2/tasks", queen.request_body())
    assert (status, refused["code"]) == (503, "DEVICE_YIELDED")
    assert "hive resume --node localhost" in refused["hint"]
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(completion, queen)
        eventually(lambda: queen.get("/v2/status")["tasks_waiting"] == 1, within=10, because="the request waits")
        assert [row["device"] for row in take_back(queen)] == [0]
        assert waiting.result(timeout=60 * slowness()).status_code == 200
    assert take_back(queen) == []


def test_what_does_not_end_in_time_is_stopped_in_words(machine: Machine) -> None:
    """A request that goes on beyond the time ends with an error, and the receipt counts it."""
    queen = QueenProcess(machine)
    running = queen.aside(max_tokens=2000)
    running.tokens(at_least=1)

    (device,) = give_away(queen, drain_s=1)["devices"]

    assert [receipt["requests_stopped"] for receipt in device["workers"]] == [1]
    assert not device["workers"][0]["killed"]
    (error,) = named(running.ended(), "error")
    assert error["error"]["code"] == "DRAINING"
    assert "had not ended within 1 s" in error["error"]["message"]


def test_a_request_that_waits_for_a_load_is_answered_after_the_yield(machine: Machine) -> None:
    """A yield that ends a load does not end the requests that wait for it: they are answered when its time is over."""
    machine.fake(load_s=4 * slowness())
    queen = QueenProcess(machine)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(completion, queen)
        eventually(queen.workers, within=20, because="the worker is loading")

        (device,) = give_away(queen, for_s=5)["devices"]

        assert len(device["workers"]) == 1
        answer = waiting.result(timeout=90 * slowness())
    assert answer.status_code == 200, answer.text
    assert queen.get("/v2/hives/list")["hives"][0]["yielded"] == []


def test_a_request_that_waits_for_a_slot_goes_to_another_device(machine: Machine, tmp_path: Path) -> None:
    """Of two GPUs one is yielded: what waited for its worker is answered by one on the other."""
    machine.env.update(Gpus.build(tmp_path).environ())
    machine.configure("hive", slots=1)
    queen = QueenProcess(machine)
    running = queen.aside(max_tokens=int(60 * slowness()), backend="cuda", device=0)
    running.tokens(at_least=1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(completion, queen)
        eventually(lambda: queen.get("/v2/status")["tasks_waiting"] == 1, within=10, because="a request waits")

        give_away(queen, backend="cuda", device=0)

        assert waiting.result(timeout=60 * slowness()).status_code == 200
    assert ended_well(running.ended())
    assert [(row["backend"], row["device"]) for row in queen.workers()] == [("cuda", 1)]


def test_a_declared_model_is_back_after_a_yield(machine: Machine) -> None:
    """A model with a replica is not started on a yielded device, and is again when that is resumed, unasked."""
    reference = f"file://{machine.root / 'model.gguf'}"
    machine.configure("served.bee", model=reference, replicas=1)
    queen = QueenProcess(machine)
    eventually(lambda: [row["state"] for row in queen.workers()] == ["idle"], within=30, because="it is served")

    give_away(queen)

    def state() -> tuple[str, str]:
        (row,) = queen.get("/v2/served")["served"]
        return row["state"], row["reason"]

    eventually(lambda: "yielded to another program" in state()[1], within=10, because="the list says why it is missing")
    assert state()[0] == "missing"
    assert queen.workers() == []
    take_back(queen)
    eventually(lambda: [row["state"] for row in queen.workers()] == ["idle"], within=30, because="it is served again")


def test_a_fallback_answers_while_a_device_is_yielded(machine: Machine, tmp_path: Path) -> None:
    """What could only run on a yielded device falls back to a model with another device, and else waits."""
    machine.env.update(Gpus.build(tmp_path).environ())
    model = f"file://{machine.root / 'model.gguf'}"
    machine.configure("served.bee", model=model, where={"backend": "cuda"}, fallback=["wasp"])
    machine.configure("served.wasp", model=model, where={"backend": "cpu"})
    queen = QueenProcess(machine)
    give_away(queen, backend="cuda")

    answered = completion(queen, model="bee")
    assert (answered.status_code, answered.headers["X-Rbee-Fallback"]) == (200, "wasp")
    assert "using wasp instead" in told(queen.task(model="bee"))
    give_away(queen, backend="cpu")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(completion, queen, model="bee")
        eventually(lambda: queen.get("/v2/status")["tasks_waiting"] == 1, within=10, because="both are yielded")
        queen.post("/v2/hives/resume", {"node": "localhost", "backend": "cpu"})
        assert waiting.result(timeout=60 * slowness()).headers["X-Rbee-Fallback"] == "wasp"
