"""The queen's own routes: registry, hives, workers, models, logs."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.support.gguf_files import write_gguf
from tests.support.hives import KEY as HIVE_KEY
from tests.support.hives import HiveProcess
from tests.support.hub import Hub
from tests.support.machine import Machine
from tests.support.queens import QueenProcess, machine_with_fake, named, parsed, told
from tests.support.waiting import eventually

pytestmark = pytest.mark.process

ADD_MANY = "/v2/registry/beehives/add-many"
HELLO: Any = [{"role": "user", "content": "Bees?"}]


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path) as machine:
        yield machine


@pytest.fixture(name="hive")
def _hive(tmp_path: Path) -> Iterator[HiveProcess]:
    """Another machine's hive, as far as the queen can tell."""
    hive = HiveProcess(tmp_path / "other")
    yield hive
    hive.close()


def node(hive: HiveProcess, **changes: object) -> dict[str, object]:
    """Give the body that registers *hive*."""
    return {"node_name": "attic", "ssh_host": "127.0.0.1", "hive_port": hive.port, "hive_key": HIVE_KEY, **changes}


def test_a_node_is_registered_reached_lost_and_removed(machine: Machine, hive: HiveProcess) -> None:
    """The registry follows the channel: devices and status after Hello, the reason after a loss."""
    machine.configure("queen", local_hive=False)
    queen = QueenProcess(machine)

    queen.post("/v2/registry/beehives/add", node(hive))

    def row() -> dict[str, object]:
        (found,) = queen.get("/v2/registry/beehives/list")["beehives"]
        assert isinstance(found, dict)
        return found

    eventually(lambda: row()["status"] == "reachable", within=10, because="the hive is reached")
    assert row()["backends"] == ["cpu"]
    assert row()["last_connected_unix"]
    assert HIVE_KEY not in json.dumps(queen.get("/v2/hives/list"))
    key_file = machine.home / "secrets" / "hives" / "attic"
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert queen.refused("POST", "/v2/registry/beehives/add", node(hive))[1]["code"] == "NODE_EXISTS"

    hive.kill()
    eventually(lambda: row()["status"] == "unreachable", within=5, because="the loss is noticed")
    assert row()["last_error"]

    queen.post("/v2/registry/beehives/remove", {"node_name": "attic"})
    assert queen.get("/v2/registry/beehives/list") == {"beehives": []}
    assert queen.get("/v2/hives/list") == {"hives": []}
    assert not key_file.exists()
    status, error = queen.refused("POST", "/v2/registry/beehives/remove", {"node_name": "attic"})
    assert (status, error["code"]) == (404, "NODE_NOT_FOUND")


def test_a_queen_that_comes_back_finds_the_workers_as_they_were(machine: Machine, hive: HiveProcess) -> None:
    """After a kill the next queen adopts the hive and its workers by their first message."""
    machine.configure("queen", local_hive=False)
    first = QueenProcess(machine)
    first.post("/v2/registry/beehives/add", node(hive))
    eventually(lambda: first.get("/v2/status")["hives_connected"] == 1, within=10, because="the hive is reached")
    worker_id = hive.spawn(first.model)["worker"]["worker_id"]
    hive.serving(worker_id)
    eventually(lambda: [row["worker_id"] for row in first.workers()] == [worker_id], within=5, because="it is told")
    first.running.process.kill()
    first.running.process.wait()

    second = QueenProcess(machine)

    eventually(lambda: [row["worker_id"] for row in second.workers()] == [worker_id], within=10, because="adopted")
    assert second.worker()["node"] == "attic"
    assert second.worker()["state"] == "idle"
    second.running.process.kill()


def test_a_hive_that_refuses_the_key_says_so(machine: Machine, hive: HiveProcess) -> None:
    """A wrong hive key is the reason in the list, and a task there is refused with it."""
    machine.configure("queen", local_hive=False)
    queen = QueenProcess(machine)
    queen.post("/v2/registry/beehives/add", node(hive, hive_key="not-the-key-of-this-hive"))

    def reason() -> str:
        return str(queen.get("/v2/hives/list")["hives"][0]["last_error"])

    eventually(lambda: "does not accept the queen's key" in reason(), within=10, because="the refusal is known")
    status, error = queen.refused("POST", "/v2/tasks", queen.request_body(node="attic"))
    assert (status, error["code"]) == (502, "CONNECTION_TIMEOUT")
    assert "key" in error["message"]


def test_many_nodes_are_added_in_one_call_or_none_of_them(hive: HiveProcess, machine: Machine) -> None:
    """All are registered, with their keys, and dialled; a bad one keeps all out and is named; lists come in pages."""
    machine.configure("queen", local_hive=False)
    queen = QueenProcess(machine)
    nodes = [node(hive, node_name=f"n{number:03}", hive_key=f"key-of-{number:03}") for number in range(40)]

    status, error = queen.refused("POST", ADD_MANY, {"nodes": [*nodes, node(hive, node_name="-"), nodes[0]]})
    assert (status, error["code"]) == (400, "INVALID_REQUEST")
    assert [row["node"] for row in error["details"]["nodes"]] == ["-", "n000"]
    assert queen.get("/v2/registry/beehives/list") == {"beehives": []}

    added = queen.post(ADD_MANY, {"nodes": nodes})["beehives"]
    assert [row["node_name"] for row in added] == [each["node_name"] for each in nodes]
    status, error = queen.refused("POST", ADD_MANY, {"nodes": [node(hive, node_name="other"), nodes[7]]})
    assert (status, error["code"]) == (409, "NODE_EXISTS")
    assert [row["node"] for row in error["details"]["nodes"]] == ["n007"]

    for path, rows, name in (("registry/beehives", "beehives", "node_name"), ("hives", "hives", "node")):
        page = queen.get(f"/v2/{path}/list", limit=25)
        rest = queen.get(f"/v2/{path}/list", limit=25, after=page["next"])
        assert "next" not in rest
        names = [row[name] for row in (*page[rows], *rest[rows])]
        assert names == [each["node_name"] for each in nodes]
        assert queen.refused("GET", f"/v2/{path}/list?limit=0")[1]["code"] == "INVALID_REQUEST"


def test_the_queens_own_machine_is_not_registered_twice(machine: Machine) -> None:
    """`localhost` is built in."""
    queen = QueenProcess(machine)

    status, error = queen.refused(
        "POST", "/v2/registry/beehives/add", {"node_name": "localhost", "ssh_host": "127.0.0.1"}
    )

    assert (status, error["code"]) == (409, "NODE_EXISTS")
    assert queen.refused("POST", ADD_MANY, {"nodes": [{"node_name": "localhost", "ssh_host": "127.0.0.1"}]})[0] == 409


def test_workers_are_started_listed_asked_and_stopped(machine: Machine) -> None:
    """A start streams until the worker is ready; it is in the lists; its stop gives a receipt."""
    queen = QueenProcess(machine)
    with queen.streaming("/v2/workers/spawn", {"node": "localhost", "model": queen.model, "slots": 3}) as stream:
        events = list(stream)

    assert events[-1] == ("message", "[DONE]")
    worker = events[-2][1]["worker"]
    assert (worker["state"], worker["slots_total"]) == ("idle", 3)
    assert "ready" in told(events)
    assert queen.worker()["worker_id"] == worker["worker_id"]
    # What it takes of the memory is measured meanwhile.
    eventually(
        lambda: queen.get("/v2/workers/list", node="localhost")["workers"] == queen.workers(),
        within=5,
        because="both lists have the same",
    )
    (row,) = queen.get("/v2/workers/health")["workers"]
    assert row["health"]["slots_total"] == 3
    assert "api_key" not in json.dumps(queen.workers())

    receipt = queen.post("/v2/workers/shutdown", {"worker_id": worker["worker_id"]})

    assert (receipt["worker_id"], receipt["gone"]) == (worker["worker_id"], True)
    assert queen.workers() == []
    status, error = queen.refused("POST", "/v2/workers/shutdown", {"worker_id": worker["worker_id"]})
    assert (status, error["code"]) == (404, "WORKER_NOT_FOUND")
    assert queen.refused("GET", "/v2/workers/list?node=barn")[1]["code"] == "NODE_NOT_FOUND"


def test_the_first_pull_after_a_start_knows_the_catalog(machine: Machine, tmp_path: Path) -> None:
    """A catalog that is slow to be opened is not taken for an empty one; what was chosen of a repository is told."""
    with Hub() as hub:
        hub.add("bees/tiny-GGUF", "tiny-Q5_K_M.gguf", write_gguf(tmp_path / "m.gguf", size=100_000).read_bytes())
        machine.env |= hub.environ(tmp_path)
        body = {"node": "localhost", "model": "hf:bees/tiny-GGUF"}
        queen = QueenProcess(machine)
        with queen.streaming("/v2/models/download", body) as stream:
            first = told(list(stream))
        queen.running.signal(signal.SIGTERM)
        queen.running.wait(20)
        queen = QueenProcess(machine)
        with queen.streaming("/v2/models/download", body) as stream:
            second = told(list(stream))

    assert "taking tiny-Q5_K_M.gguf, because bees/tiny-GGUF has no Q4_K_M" in first
    assert "is not in the catalog, downloading it" in first
    assert "downloaded and added to the catalog" in first
    assert "found in the catalog" in second
    assert "download" not in second


def test_models_are_fetched_shown_and_removed(machine: Machine) -> None:
    """What a node has is listed with what its file says; removing it needs it to be there."""
    queen = QueenProcess(machine)
    with queen.streaming("/v2/models/download", {"node": "localhost", "model": queen.model}) as stream:
        events = list(stream)
    assert "found in the catalog" in told(events)
    assert events[-1] == ("message", "[DONE]")

    (entry,) = queen.get("/v2/models/list", node="localhost")["models"]
    shown = queen.get("/v2/models/show", node="localhost", model=queen.model)

    assert shown["id"] == entry["id"]
    assert shown["layers"] == 4
    params = {"node": "localhost", "model": queen.model}
    assert queen.http.delete("/v2/models", params=params).status_code == 204
    assert queen.http.delete("/v2/models", params=params).json()["error"]["code"] == "MODEL_NOT_FOUND"
    with queen.streaming("/v2/models/download", {"node": "localhost", "model": "nonsense"}) as stream:
        assert named(list(stream), "error")[0]["error"]["code"] == "INVALID_MODEL_REF"


def test_logs_are_read_and_followed(machine: Machine) -> None:
    """The last lines come first; with follow new lines come as they are written, until the queen ends."""
    queen = QueenProcess(machine)
    queen.task()

    with queen.http.stream("GET", "/v2/logs", params={"node": "localhost", "lines": 50}) as response:
        events = list(parsed(response.iter_lines()))
    assert events[-1] == ("message", "[DONE]")
    assert {"rbee-hive", queen.worker()["worker_id"]} <= {data["source"] for _, data in events[:-1]}

    own = machine.home / "logs" / "queen-rbee.log"
    own.write_text("an old line\n")
    with queen.http.stream("GET", "/v2/logs", params={"lines": 1, "follow": "true"}) as response:
        queen_lines = (data["line"] for _, data in parsed(response.iter_lines()) if data["source"] == "queen-rbee")
        assert next(queen_lines) == "an old line"
        with own.open("a") as file:
            file.write("a new line\n")
        assert next(queen_lines) == "a new line"


def test_the_queen_has_one_error_body(machine: Machine) -> None:
    """Missing routes, wrong methods, wrong keys and wrong bodies answer in the same shape."""
    machine.configure("queen", local_hive=False)
    queen = QueenProcess(machine)
    keyless = dict(queen.http.headers)
    del keyless["authorization"]

    for method, path, status, code in (
        ("GET", "/v2/nothing", 404, "ROUTE_NOT_FOUND"),
        ("PUT", "/v2/tasks", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/v2/tasks", 400, "INVALID_REQUEST"),
        ("GET", "/v2/models/show", 400, "INVALID_REQUEST"),
        ("GET", "/v2/models/list?node=barn&node=attic", 404, "NODE_NOT_FOUND"),
        ("GET", "/v2/logs?node=barn", 404, "NODE_NOT_FOUND"),
    ):
        found, error = queen.refused(method, path)
        assert (found, error["code"]) == (status, code)
        assert error["message"]
        assert error["hint"]
        assert error["request_id"]
    queen.http.headers["Authorization"] = "Bearer wrong"
    assert queen.refused("GET", "/v2/status")[1]["code"] == "INVALID_API_KEY"
    del queen.http.headers["Authorization"]
    assert queen.refused("GET", "/v2/status")[1]["code"] == "MISSING_API_KEY"
    assert queen.get("/health")["status"] == "alive"


def test_metrics_count_hives_and_tasks(machine: Machine) -> None:
    """The metrics are there for Prometheus."""
    machine.configure("queen", local_hive=False)
    queen = QueenProcess(machine)

    text = queen.http.get("/metrics").text

    assert "rbee_queen_tasks_running 0.0" in text


@pytest.mark.parametrize("allowed", [True, False])
def test_pages_of_other_origins_use_the_queen_only_where_that_is_set(machine: Machine, allowed: bool) -> None:
    """A browser asks without a key whether it may, and is let through for the origins of `cors_origins` alone."""
    page = "https://chat.example.org"
    if allowed:
        machine.configure("queen", cors_origins=[page])
    queen = QueenProcess(machine)
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}

    def preflight(origin: str) -> httpx.Response:
        headers = {"Origin": origin, **asked}
        return httpx.options(f"{queen.url}/v1/chat/completions", headers=headers, trust_env=False)

    answer = queen.http.get("/v1/models", headers={"Origin": page})
    if not allowed:
        assert preflight(page).status_code == 401
        assert not [name for name in answer.headers if name.startswith("access-control")]
        return
    may = preflight(page)
    assert may.status_code == 200
    assert may.headers["Access-Control-Allow-Origin"] == page
    assert "authorization" in may.headers["Access-Control-Allow-Headers"]
    assert answer.headers["Access-Control-Allow-Origin"] == page
    assert preflight("https://evil.example.org").status_code == 400
    body = {"model": queen.model, "messages": [{"role": "user", "content": "Bees?"}], "stream": True, "max_tokens": 3}
    stream = queen.http.post("/v1/chat/completions", json=body, headers={"Origin": page})
    assert stream.headers["Access-Control-Allow-Origin"] == page
    assert "data: [DONE]" in stream.text
    stranger = httpx.get(f"{queen.url}/v1/models", headers={"Origin": page}, trust_env=False)
    assert (stranger.status_code, stranger.headers["Access-Control-Allow-Origin"]) == (401, page)


def test_a_model_without_a_chat_template_chats_with_a_warning_or_with_one_of_the_operators(machine: Machine) -> None:
    """The list and the narration warn of ChatML; a file on the node takes its place, unless it is not there."""
    machine.fake(template="")
    queen = QueenProcess(machine)
    template = machine.root / "chat.jinja"
    template.write_text("{{ messages[0].content }}")

    def start(**more: object) -> list[tuple[str, Any]]:
        with queen.streaming("/v2/workers/spawn", {"node": "localhost", "model": queen.model, **more}) as events:
            return list(events)

    warned = start()
    assert "no chat template" in told(warned)
    assert "no chat template" in queen.worker()["detail"]
    answer = queen.http.post("/v1/chat/completions", json={"model": queen.model, "messages": HELLO, "max_tokens": 3})
    assert answer.status_code == 200
    listed = machine.run("rbee-keeper", "worker", "list")
    assert "no chat template" in listed.stderr
    queen.post("/v2/workers/shutdown", {"worker_id": queen.worker()["worker_id"]})

    assert "no chat template" not in told(start(chat_template_file=str(template)))
    assert queen.worker()["detail"] == ""
    for path in ("/nowhere/chat.jinja", str(machine.root)):
        (error,) = named(start(chat_template_file=path), "error")
        assert (error["error"]["code"], error["error"]["param"]) == ("INVALID_REQUEST", "chat_template_file")


def test_a_chat_template_that_does_not_parse_is_told_to_the_operator(machine: Machine) -> None:
    """`worker start` fails with file and reason, as often as it is tried; no quarantine follows."""
    queen = QueenProcess(machine)
    template = machine.root / "chat.jinja"
    template.write_text("{{ messages[0].content }}\n{% endfor %}\n")
    command = ("worker", "start", "--node", "localhost", "--model", queen.model, "--chat-template", str(template))

    for _ in range(4):
        refused = machine.run("rbee-keeper", *command)
        assert refused.code == 1
        assert f"The chat template {template} cannot be used: " in refused.stderr, refused.stderr
        assert "Unknown statement: endfor" in refused.stderr
        assert "MODEL_INVALID" in refused.stderr

    listed = queen.get("/v2/workers/list")
    assert (listed["workers"], listed["quarantined"]) == ([], [])
    template.write_text("{{ messages[0].content }}\n")
    assert machine.run("rbee-keeper", *command).code == 0


def test_a_key_sees_no_model_but_its_own(machine: Machine) -> None:
    """A model that a key may not use is 404 to it, in the words for one that does not exist."""
    machine.tables["models"] |= {
        name: f"file://{write_gguf(machine.root / f'{name}.gguf')}" for name in ("bee", "wasp")
    }
    queen = QueenProcess(machine)
    assert queen.http.post("/v1/completions", json={"model": "bee", "prompt": "x", "max_tokens": 1}).status_code == 200
    refused = []

    with queen.client("guest", models=["bee"]) as guest:
        assert guest.get("/v1/models/bee").json()["id"] == "bee"
        for name in ("nope", "wasp", "bee.gguf", "hf:no/model"):
            answer = guest.get(f"/v1/models/{quote(name, safe='')}")
            error = answer.json()["error"]
            refused.append(
                (answer.status_code, error["code"], error["message"].replace(name, "NAME"), error["details"])
            )
    with queen.client("anybody") as client:
        assert client.get("/v1/models/wasp").status_code == 200
        assert client.get("/v1/models/hf:no%2Fmodel").status_code == 404

    missing = "There is no model 'NAME'. Available: bee."
    assert refused == [(404, "MODEL_NOT_FOUND", missing, {"models": ["bee"]})] * 4
