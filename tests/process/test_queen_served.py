"""What is declared to be served: by the queen's files, which a signal has it read again, and by its routes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine import Machine
from tests.support.queens import QueenProcess, machine_with_fake, named
from tests.support.waiting import eventually

pytestmark = pytest.mark.process


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path) as machine:
        machine.configure("queen", served_file=str(served_file(machine)))
        machine.tables["models"]["bee"] = f"file://{machine.root / 'model.gguf'}"
        declare(machine, chat='model = "bee"\ncontext_length = 512\npresets.chat-exact = { temperature = 0 }')
        yield machine


def served_file(machine: Machine) -> Path:
    return machine.root / "served.toml"


def declare(machine: Machine, **tables: str) -> None:
    """Write what is declared in the file of its own."""
    text = "\n".join(f"[served.{name}]\n{lines}\n" for name, lines in tables.items())
    served_file(machine).write_text(text)


def rows(queen: QueenProcess) -> dict[str, dict[str, Any]]:
    return {row["declared"]["name"]: row for row in queen.get("/v2/served")["served"]}


def reload(queen: QueenProcess) -> None:
    queen.running.process.send_signal(signal.SIGHUP)


def put(queen: QueenProcess, name: str, body: dict[str, Any]) -> dict[str, Any]:
    response = queen.http.put(f"/v2/served/{name}", json=body)
    assert response.status_code == 200, response.text
    row: dict[str, Any] = response.json()
    return row


def test_a_signal_has_the_files_read_again(machine: Machine) -> None:
    """What is right is applied by the same process; what is wrong is told and changes nothing."""
    queen = QueenProcess(machine)
    (row,) = rows(queen).values()
    assert row["source"] == "file"
    assert row["place"] == f"{served_file(machine)}:1"
    assert row["declared"]["model"] == f"file://{machine.root / 'model.gguf'}"
    assert (row["state"], row["reason"], row["workers"]) == ("on demand", "", [])

    declare(machine, chat='model = "bee"\nslotz = 3')
    reload(queen)
    problem = eventually(
        lambda: queen.get("/v2/served")["problem"], within=5, because="the file that is wrong was read"
    )
    assert f"{served_file(machine)}:3: [served.chat] unknown key 'slotz'; did you mean 'slots'?" in problem
    assert rows(queen) == {"chat": row}
    assert "declared models not reloaded" in queen.running.stderr.read_text()

    declare(machine, chat='model = "bee"\nslots = 3', other='model = "hf:org/repo"')
    reload(queen)
    eventually(lambda: set(rows(queen)) == {"chat", "other"}, within=5, because="the file that is right was read")
    answer = queen.get("/v2/served")
    assert answer["problem"] is None
    assert rows(queen)["chat"]["declared"]["slots"] == 3
    assert rows(queen)["chat"]["revision"] != row["revision"]
    assert queen.running.process.poll() is None


def test_a_wrong_file_ends_the_start(machine: Machine) -> None:
    """The queen exits with 78 and names file, line and key."""
    declare(machine, chat='model = "bee"\nreplicas = 65')

    ended = machine.run("queen-rbee", "--local-hive", "false")

    assert ended.code == 78
    assert (
        f"{served_file(machine)}:3: [served.chat] replicas: Input should be less than or equal to 64." in ended.stderr
    )
    assert "Traceback" not in ended.stderr


def test_what_a_command_declares_survives_a_restart(machine: Machine) -> None:
    """It is stored, changed, and removed; what would contradict another declaration is refused."""
    machine.configure("queen", local_hive=False)
    queen = QueenProcess(machine)
    assert not (machine.home / "beehives.db").exists()
    put(queen, "small", {"model": "bee", "keep": "90s"})
    changed = put(queen, "small", {"model": "bee", "keep": "always", "fallback": ["chat"]})
    assert (changed["source"], changed["place"], changed["declared"]["keep"]) == ("api", None, "always")
    put(queen, "gone", {"model": "bee"})
    put(queen, "leans", {"model": "bee", "fallback": ["gone"]})

    status, error = queen.refused("DELETE", "/v2/served/gone")
    assert (status, error["code"]) == (400, "INVALID_REQUEST")
    assert "leans falls back to gone, which is not declared" in error["message"]
    assert error["hint"] == "Change the other declaration first, or this one; to see all: rbee-keeper models served"
    error = queen.refused("POST", "/v2/served/plan", {"remove": ["nobody"]})[1]
    assert "rbee-keeper models served" in error["hint"]
    assert queen.http.delete("/v2/served/leans").status_code == 204
    assert queen.http.delete("/v2/served/gone").status_code == 204

    queen.running.process.send_signal(signal.SIGTERM)
    assert queen.running.wait(20).code == 0
    again = QueenProcess(machine)
    assert set(rows(again)) == {"chat", "small"}
    assert rows(again)["small"] == changed


def test_what_cannot_be_declared_is_refused_with_its_reason(machine: Machine) -> None:
    """A name of a file is changed in the file; a wrong field, name or reference is named."""
    queen = QueenProcess(machine)
    refusals: list[tuple[str, str, Any, int, str]] = [
        ("PUT", "chat", {"model": "bee"}, 409, f"chat is declared in {served_file(machine)}:1"),
        ("DELETE", "chat", None, 409, f"chat is declared in {served_file(machine)}:1"),
        ("DELETE", "nobody", None, 404, "There is no declared model 'nobody'. Declared: chat."),
        ("PUT", "a", {"model": "wasp"}, 400, "model: 'wasp' is not a model reference"),
        ("PUT", "a", {"model": "bee", "replica": 2}, 400, "replica: Extra inputs are not permitted"),
        ("PUT", "a", {"model": "bee", "draft": "x"}, 400, "'draft' (a draft model) is not built yet"),
        ("PUT", "a%20b", {"model": "bee"}, 400, "'a b' cannot be a name"),
        (
            "PUT",
            "chat-exact",
            {"model": "bee"},
            400,
            "the name chat-exact is declared twice: by chat and by chat-exact",
        ),
        ("PUT", "a", {"model": "bee", "fallback": ["a"]}, 400, "go in a circle"),
    ]
    for method, name, body, status, message in refusals:
        found = queen.refused(method, f"/v2/served/{name}", body)
        assert found[0] == status, found
        assert message in found[1]["message"], found
    assert set(rows(queen)) == {"chat"}
    with queen.client("guest") as client:
        assert client.get("/v2/served").status_code == 403
        assert client.put("/v2/served/a", json={"model": "bee"}).status_code == 403


def test_a_file_that_takes_a_name_has_it(machine: Machine) -> None:
    """What a command declared under it is left out and told, after a reload and after a restart, and comes back."""
    machine.configure("queen", local_hive=False)
    queen = QueenProcess(machine)
    put(queen, "small", {"model": "bee"})
    declare(machine, small='model = "hf:org/repo"')
    reload(queen)
    eventually(lambda: queen.get("/v2/served")["problem"], within=5, because="the file was read again")

    def check(queen: QueenProcess) -> None:
        assert rows(queen)["small"]["source"] == "file"
        assert "the name small is declared twice" in queen.get("/v2/served")["problem"]

    check(queen)
    queen.running.process.send_signal(signal.SIGTERM)
    assert queen.running.wait(20).code == 0
    queen = QueenProcess(machine)
    check(queen)
    declare(machine)
    reload(queen)
    eventually(lambda: rows(queen)["small"]["source"] == "api", within=5, because="the name is free again")
    assert queen.get("/v2/served")["problem"] is None


def test_an_operator_fetches_a_declared_model_by_name_and_starts_no_worker_of_it(machine: Machine) -> None:
    """Its file is meant by any name of it; its workers are the queen's business, and the error says so."""
    queen = QueenProcess(machine)
    for name in ("chat", "chat-exact"):
        ran = machine.run("rbee-keeper", "models", "pull", name)
        assert ran.code == 0, ran.stderr
        shown = machine.run("rbee-keeper", "models", "show", name, "--json")
        assert shown.code == 0, shown.stderr
        assert "model.gguf" in shown.stdout
        started = machine.run("rbee-keeper", "worker", "start", "--node", "localhost", "--model", name)
        assert started.code == 1
        assert f"{name} is a declared model: the queen starts its workers itself" in started.stderr
        assert "models serve chat --replicas 1" in started.stderr
    assert queen.workers() == []


def test_a_client_asks_by_a_declared_name_or_a_preset(machine: Machine) -> None:
    """All interfaces know both, also for a key that is limited to one of them, and list them first."""
    queen = QueenProcess(machine)
    listed = queen.get("/v1/models")["data"]
    assert [card["id"] for card in listed[:2]] == ["chat", "chat-exact"]
    assert {(card["owned_by"], card["context_length"]) for card in listed[:2]} == {("rbee", 512)}
    assert queen.get("/v1/models/chat-exact")["context_length"] == 512
    assert [model["name"] for model in queen.get("/api/tags")["models"]][:2] == ["chat", "chat-exact"]

    answered = machine.run("rbee-keeper", "infer", "--model", "chat", "--prompt", "x", "--max-tokens", "2")
    assert answered.code == 0, answered.stderr
    events = queen.task(model="chat", node=None)
    assert named(events, "placed"), events
    for name in ("chat", "chat-exact"):
        answer = queen.post("/v1/completions", {"model": name, "prompt": "x", "max_tokens": 2})
        assert answer["usage"]["completion_tokens"] == 2
    assert queen.post("/api/generate", {"model": "chat:latest", "prompt": "x", "stream": False})["done"] is True

    with queen.client("guest", models=["chat-exact"]) as client:
        assert [card["id"] for card in client.get("/v1/models").json()["data"]] == ["chat-exact"]
        body = {"model": "chat-exact", "prompt": "x", "max_tokens": 2}
        assert client.post("/v1/completions", json=body).status_code == 200
        assert client.post("/v1/completions", json={**body, "model": "chat"}).status_code == 403
        assert client.post("/v2/tasks", json={"model": "chat-exact", "prompt": "x"}).status_code == 200
    with queen.client("other") as client:
        refused = client.post("/v1/completions", json={"model": "wasp", "prompt": "x"})
        assert refused.status_code == 404
        assert "Available: chat, chat-exact, bee" in refused.json()["error"]["message"]
    error = queen.refused("POST", "/v1/completions", {"model": "wasp", "prompt": "x"})[1]
    assert "Available: chat, chat-exact, bee" in error["message"]
