"""A task on its way: placed, started, relayed, cancelled, broken; with real daemons and a fake engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine import Machine
from tests.support.queens import QueenProcess, count, ended_well, machine_with_fake, named, told
from tests.support.waiting import eventually, slowness

pytestmark = pytest.mark.process


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path) as machine:
        yield machine


def test_a_cold_task_brings_up_what_it_needs_and_a_warm_one_reuses_it(machine: Machine) -> None:
    """From nothing the story is told step by step; the next task goes straight to the worker."""
    machine.fake(load_s=2 * slowness())
    queen = QueenProcess(machine)

    cold = queen.task(max_tokens=5)

    assert cold[0][0] == "task"
    assert ended_well(cold)
    assert count(cold) == cold[-2][1]["total_tokens"] == 5
    assert named(cold, "placed")[0]["warm"] is False
    for step in (
        "starting one on localhost (cpu",
        "alive, version",
        "found in the catalog",
        "started worker",
        "ready",
    ):
        assert step in told(cold)
    assert any("loading" in progress for progress in named(cold, "progress"))

    warm = queen.task(max_tokens=5)

    assert ended_well(warm)
    assert named(warm, "placed")[0]["warm"] is True
    assert named(warm, "placed")[0]["worker_id"] == named(cold, "placed")[0]["worker_id"]
    assert "is warm: reusing it" in told(warm)
    assert "alive, version" not in told(warm)


def test_many_tasks_from_cold_make_one_load(machine: Machine) -> None:
    """Twelve requests at once from nothing are answered by one worker."""
    machine.configure("hive", slots=12)
    machine.fake(load_s=0.5)
    queen = QueenProcess(machine)

    asides = [queen.aside() for _ in range(12)]

    assert all(ended_well(aside.ended()) for aside in asides)
    assert len(queen.workers()) == 1
    assert len(list((machine.home / "logs").glob("worker-*.log"))) == 1


def test_a_busy_worker_is_retried_and_then_given_up(machine: Machine) -> None:
    """503 from the worker is told with its slots, three times, then ALL_SLOTS_BUSY with advice."""
    machine.configure("hive", slots=1)
    machine.fake(tokens_per_s=5)
    queen = QueenProcess(machine)
    first = queen.aside(max_tokens=400)
    first.tokens(1)

    second = queen.task()

    (error,) = named(second, "error")
    assert error["error"]["code"] == "ALL_SLOTS_BUSY"
    assert (error["error"]["details"]["slots_total"], error["error"]["details"]["slots_busy"]) == (1, 1)
    assert "worker start --node localhost" in error["error"]["hint"]
    retries = [line["human"] for line in named(second, "narration") if line["action"] == "retry"]
    assert len(retries) == 3
    assert all("all slots are busy (1 of 1)" in retry for retry in retries)
    assert len(queen.workers()) == 1


def test_a_client_that_leaves_frees_the_slot(machine: Machine) -> None:
    """Closing the stream stops the generation, and the slot is free soon after."""
    machine.fake(tokens_per_s=20)
    queen = QueenProcess(machine)

    with queen.streaming("/v2/tasks", queen.request_body(max_tokens=2000)) as events:
        assert any("token" in data for name, data in events if name == "message")

    eventually(queen.all_idle, within=5, because="the slot is free")
    eventually(lambda: queen.get("/v2/status")["tasks_running"] == 0, within=5, because="the task is gone")


def test_delete_cancels_and_the_client_is_told(machine: Machine) -> None:
    """DELETE answers when the slot is free; the stream ends with CANCELED; DELETE again is fine."""
    machine.fake(tokens_per_s=20)
    queen = QueenProcess(machine)
    aside = queen.aside(max_tokens=2000)
    aside.tokens(2)
    path = f"/v2/tasks/{aside.saw('task')['task_id']}"

    assert queen.http.delete(path).status_code == 204
    assert queen.http.delete(path).status_code == 204

    (error,) = named(aside.ended(), "error")
    assert error["error"]["code"] == "CANCELED"
    eventually(queen.all_idle, within=2, because="the slot is free")


def test_a_worker_that_crashes_in_mid_stream_is_an_error_with_its_last_words(machine: Machine) -> None:
    """The tokens that came are passed on, then the error with their count; the next task gets a new worker."""
    machine.fake(tokens_per_s=50, exit_after=7)
    queen = QueenProcess(machine)

    broken = queen.task(max_tokens=100)

    (error,) = named(broken, "error")
    assert error["error"]["code"] == "WORKER_CRASHED"
    assert error["error"]["details"]["tokens"] == count(broken) > 0
    worker_id = named(broken, "placed")[0]["worker_id"]
    assert error["error"]["details"]["worker_id"] == worker_id
    assert all(row["worker_id"] != worker_id for row in queen.workers())

    again = queen.task(max_tokens=3)
    assert ended_well(again)
    assert named(again, "placed")[0]["worker_id"] != worker_id


def test_a_worker_that_stalls_is_given_up(machine: Machine) -> None:
    """No token for the limit ends the stream with WORKER_STALLED."""
    machine.configure("queen", no_token_timeout_s=1)
    machine.fake(hang_after=5)
    queen = QueenProcess(machine)

    stalled = queen.task(max_tokens=100)

    assert named(stalled, "error")[0]["error"]["code"] == "WORKER_STALLED"


@pytest.mark.parametrize("path", ["/v2/tasks", "/v1/chat/completions", "/v1/messages"])
def test_a_prompt_that_takes_long_to_read_is_no_stall(machine: Machine, path: str) -> None:
    """A prompt may take longer to read than a stream may be silent, and its client sees how far it is."""
    machine.configure("queen", no_token_timeout_s=2 * slowness())
    machine.configure("hive", slots=2)
    machine.fake(prompt_tokens_per_s=400 / slowness())
    queen = QueenProcess(machine)
    queen.task(max_tokens=1)
    text = "bee " * 2000
    chat = {"model": queen.model, "messages": [{"role": "user", "content": text}], "max_tokens": 3, "stream": True}
    body = queen.request_body(prompt=text, max_tokens=3) if path == "/v2/tasks" else chat

    with queen.http.stream("POST", path, json=body) as response:
        lines = list(response.iter_lines())

    assert not [line for line in lines if "STALLED" in line]
    told = [line for line in lines if line.startswith(": progress ")]
    assert 2 <= len(told) <= 10 * slowness()
    assert all("prompt tokens" in line for line in told)
    assert any(end in "\n".join(lines) for end in ("[DONE]", "message_stop"))


def test_a_load_that_takes_too_long_says_where_it_stuck(machine: Machine) -> None:
    """LOADING_TIMEOUT names how far it came and the log, and the stuck worker is stopped."""
    machine.configure("queen", loading_timeout_s=6)
    machine.fake(load_hangs_at=0.5)
    queen = QueenProcess(machine)

    stuck = queen.task()

    error = named(stuck, "error")[0]["error"]
    assert error["code"] == "LOADING_TIMEOUT"
    assert error["details"]["progress"]["stage"] == "loading_to_ram"
    assert "15 of 32 layers are loaded" in error["message"]
    assert error["details"]["log"].endswith(".log")
    eventually(lambda: not queen.workers(), within=35, because="the stuck worker is stopped")


def test_a_model_that_does_not_load_is_the_workers_own_error(machine: Machine) -> None:
    """What the worker said of its end reaches the client, with the last lines of its log."""
    machine.fake(load_fails="vram")
    queen = QueenProcess(machine)

    failed = queen.task()

    error = named(failed, "error")[0]["error"]
    assert error["code"] == "GPU_VRAM_EXHAUSTED"
    assert error["details"]["required_mb"] == 6000
    assert "worker_id" in error["details"]


def test_what_can_be_known_at_once_is_a_plain_refusal(machine: Machine) -> None:
    """An unknown node, a missing backend or device and bad input have their status, before any stream."""
    queen = QueenProcess(machine)
    eventually(lambda: queen.get("/v2/status")["hives_connected"] == 1, within=15, because="the local hive is there")

    for fields, status, code in (
        ({"node": "barn"}, 404, "NODE_NOT_FOUND"),
        ({"backend": "metal"}, 503, "BACKEND_UNAVAILABLE"),
        ({"device": 5}, 400, "INVALID_DEVICE"),
        ({"max_tokens": -1}, 400, "INVALID_REQUEST"),
        ({"temperature": 9}, 400, "INVALID_REQUEST"),
        ({"prompt": "  "}, 400, "INVALID_REQUEST"),
        ({"typo": 1}, 400, "INVALID_REQUEST"),
    ):
        assert queen.refused("POST", "/v2/tasks", queen.request_body(**fields))[0] == status, fields
        assert queen.refused("POST", "/v2/tasks", queen.request_body(**fields))[1]["code"] == code, fields
    assert (
        queen.refused("POST", "/v2/tasks", queen.request_body(prompt="x" * 5_000_000))[1]["code"] == "PAYLOAD_TOO_LARGE"
    )


def test_a_context_that_is_too_small_is_the_workers_refusal(machine: Machine) -> None:
    """A prompt longer than the context is refused by the worker, and the refusal is passed on unchanged."""
    machine.fake(context=64)
    queen = QueenProcess(machine)

    refused = queen.task(prompt="bee " * 500)

    assert named(refused, "error")[0]["error"]["code"] == "context_length_exceeded"
