"""Requests that wait for a slot: held, told their place, served in turn; with real daemons and a fake engine."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.machine import Machine
from tests.support.queens import Aside, QueenProcess, ended_well, machine_with_fake, named, told
from tests.support.waiting import eventually

pytestmark = pytest.mark.process


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path) as machine:
        yield machine


def client_of(queen: QueenProcess, name: str) -> dict[str, str]:
    """Make a key for a client; give the headers that show it."""
    made = queen.http.post("/v2/keys/add", json={"name": name})
    assert made.status_code == 201, made.text
    return {"Authorization": f"Bearer {made.json()['key']}"}


def starts(asides: dict[str, Aside]) -> list[str]:
    """Give the names of tasks in the order in which they were placed, as their first tokens came."""
    return sorted(asides, key=lambda name: asides[name].placed_at)


def test_fifty_requests_from_cold_make_one_load_and_are_all_answered(machine: Machine) -> None:
    """A request that waits for a cold start is held until a slot is free, and told its position in the queue."""
    machine.configure("hive", slots=4)
    machine.fake(load_s=2, tokens_per_s=50)
    queen = QueenProcess(machine)

    asides = [queen.aside(max_tokens=20) for _ in range(50)]

    assert all(ended_well(aside.ended()) for aside in asides)
    assert len(list((machine.home / "logs").glob("worker-*.log"))) == 1
    assert any("in the queue" in told(aside.events) for aside in asides)


@contextmanager
def slot_taken(queen: QueenProcess) -> Iterator[None]:
    """Have the only slot taken until everybody waits in the queue."""
    first = queen.aside(max_tokens=4000, node=None)
    first.tokens(1)
    yield
    queen.http.delete(f"/v2/tasks/{first.saw('task')['task_id']}")
    first.ended()


def in_line(queen: QueenProcess, **fields: Any) -> Aside:
    """Begin a task that has to wait; gives it once it does."""
    before = queen.get("/v2/status")["tasks_waiting"]
    # Long enough that the order in which they begin is seen by whoever reads them in threads.
    aside = queen.aside(max_tokens=8, deadline_s=60, **fields)
    eventually(lambda: queen.get("/v2/status")["tasks_waiting"] == before + 1, within=10, because="it waits")
    return aside


def test_a_higher_priority_is_served_first(machine: Machine) -> None:
    """Of those who wait, the most urgent gets the next slot, whoever came first."""
    machine.configure("hive", slots=1)
    machine.fake(tokens_per_s=20)
    queen = QueenProcess(machine)
    with slot_taken(queen):
        asides = {name: in_line(queen, priority=at) for name, at in (("usual", 0), ("idle", -5), ("urgent", 5))}

    assert all(ended_well(aside.ended()) for aside in asides.values())

    assert starts(asides) == ["urgent", "usual", "idle"]


def test_a_client_with_many_requests_does_not_hold_up_another(machine: Machine) -> None:
    """Clients take turns: one request waits for one of somebody who brought five, not for all of them."""
    machine.configure("hive", slots=1)
    machine.fake(tokens_per_s=20)
    queen = QueenProcess(machine)
    many, few = client_of(queen, "many"), client_of(queen, "few")
    with slot_taken(queen):
        asides = {f"many {number}": in_line(queen, headers=many, node=None) for number in range(5)}
        asides["few"] = in_line(queen, headers=few, node=None)

    assert all(ended_well(aside.ended()) for aside in asides.values())

    assert starts(asides).index("few") <= 1


def test_a_deadline_ends_waiting_and_generating(machine: Machine) -> None:
    """Nobody waits or computes for an answer that comes too late; the slot is free afterwards."""
    machine.configure("hive", slots=1)
    machine.fake(tokens_per_s=20)
    queen = QueenProcess(machine)
    queen.task(max_tokens=1)  # the model is loaded; on a busy machine that alone may take longer than the deadline
    running = queen.aside(max_tokens=2000, deadline_s=4)
    running.tokens(1)

    waited = queen.task(deadline_s=0.5)

    (error,) = named(waited, "error")
    assert error["error"]["code"] == "REQUEST_TIMEOUT"
    (error,) = named(running.ended(), "error")
    assert error["error"]["code"] == "REQUEST_TIMEOUT"
    eventually(queen.all_idle, within=5, because="the slot is free")


def test_a_full_queue_refuses_at_once(machine: Machine) -> None:
    """One task too many, in all or of one client, is refused with 503, Retry-After and the limit."""
    machine.configure("hive", slots=1)
    machine.configure("queen", max_tasks=3, max_tasks_per_client=2)
    machine.fake(tokens_per_s=10)
    queen = QueenProcess(machine)
    other = client_of(queen, "other")
    assert ended_well(queen.task())  # a client names the model only once it is there
    asides = [queen.aside(max_tokens=400, deadline_s=60) for _ in range(2)]
    eventually(lambda: queen.get("/v2/status")["tasks_running"] == 2, within=20, because="both are taken in")

    of_client = queen.http.post("/v2/tasks", json=queen.request_body())
    third = queen.aside(max_tokens=3, deadline_s=60, headers=other, node=None)
    eventually(lambda: queen.get("/v2/status")["tasks_running"] == 3, within=20, because="the other's is taken in")
    of_all = queen.http.post("/v2/tasks", json=queen.request_body(node=None), headers=other)

    for refused, limit in ((of_client, "max_tasks_per_client"), (of_all, "max_tasks")):
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert refused.json()["error"]["code"] == "QUEUE_FULL"
        assert limit in refused.json()["error"]["details"]
    for aside in (*asides, third):
        queen.http.delete(f"/v2/tasks/{aside.saw('task')['task_id']}")
        aside.ended()


def test_a_clients_key_opens_tokens_and_nothing_else(machine: Machine) -> None:
    """It runs tasks, cancels only its own, and neither stops the queen nor sees nor makes keys; removed it is dead."""
    queen = QueenProcess(machine)
    alice = client_of(queen, "alice")
    with httpx.Client(base_url=queen.http.base_url, headers=alice, trust_env=False) as http:
        assert http.get("/v1/models").status_code == 200
        for method, path in (("POST", "/v1/admin/shutdown"), ("GET", "/v2/keys/list"), ("GET", "/v2/workers/list")):
            refused = http.request(method, path)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "FORBIDDEN")
            assert "'operate'" in refused.json()["error"]["message"]
        assert http.get("/v2/nothing").json()["error"]["code"] == "ROUTE_NOT_FOUND"
        operators = queen.aside(max_tokens=5)
        task = operators.saw("task")["task_id"]
        assert http.delete(f"/v2/tasks/{task}").status_code == 204
        assert ended_well(operators.ended())
        assert [key["name"] for key in queen.get("/v2/keys/list")["keys"]] == ["alice"]
        assert queen.http.post("/v2/keys/remove", json={"name": "alice"}).status_code == 204
        assert http.get("/v1/models").json()["error"]["code"] == "INVALID_API_KEY"


def test_other_peoples_clients_are_held_too(machine: Machine) -> None:
    """A chat request that finds all slots busy waits for one, instead of being told to try again."""
    machine.configure("hive", slots=1)
    machine.fake(tokens_per_s=20)
    queen = QueenProcess(machine)
    body = {
        "model": queen.model,
        "messages": [{"role": "user", "content": "hello"}],
        "max_completion_tokens": 20,
    }

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: queen.http.post("/v1/chat/completions", json=body, timeout=300), range(12)))

    assert [answer.status_code for answer in answers] == [200] * 12
