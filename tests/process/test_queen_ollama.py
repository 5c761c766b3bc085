"""Ollama's clients at the queen: models by name, streams of lines, refusals in their form, what operators do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine import Machine
from tests.support.queens import QueenProcess, machine_with_fake
from tests.support.waiting import eventually, slowness

pytestmark = pytest.mark.process
HELLO: Any = [{"role": "user", "content": "Bees?"}]


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path) as machine:
        machine.tables["models"]["bee"] = f"file://{machine.root / 'model.gguf'}"
        yield machine


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "bee", "messages": HELLO, "options": {"num_predict": 5}, **more}


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def actions(machine: Machine) -> list[str]:
    """Return what the audit has of operators' actions that were done."""
    path = machine.home / "logs" / "audit.log"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line["action"] for line in map(json.loads, lines) if line["result"] == "done"]


def sizes(queen: QueenProcess) -> list[int]:
    """Return the sizes of the models that are in a catalog."""
    return [model["size"] for model in queen.get("/api/tags")["models"] if model["size"]]


def test_a_cold_stream_is_kept_alive_without_a_line_of_its_own(machine: Machine) -> None:
    """While a model loads there are only spaces; then come the worker's lines, and no comment of anybody's."""
    machine.fake(load_s=3 * slowness())
    queen = QueenProcess(machine)

    cold = queen.http.post("/api/chat", json=chat())
    warm = queen.http.post("/api/chat", json=chat())

    assert cold.headers["content-type"] == warm.headers["content-type"] == "application/x-ndjson"
    assert cold.text.startswith(" ")
    assert warm.text.startswith("{")
    for answer in (cold, warm):
        pieces = lines(answer.text)
        assert "".join(one["message"]["content"] for one in pieces) == "Honey bees, bumble bees and"
        assert [one["done"] for one in pieces] == [False] * 5 + [True]


def test_what_is_answered_is_counted_for_its_key(machine: Machine) -> None:
    """Tokens of streams and of whole answers count for the client, on every route of Ollama's."""
    queen = QueenProcess(machine)
    with queen.client("guest", models=["bee"]) as client:
        stream = lines(client.post("/api/chat", json=chat()).text)[-1]
        whole = client.post("/api/generate", json={**chat(stream=False), "prompt": "Bees?"}).json()

    def used() -> Any:
        return next(key for key in queen.get("/v2/keys/list")["keys"] if key["name"] == "guest")

    expected = sum(one["prompt_eval_count"] + one["eval_count"] for one in (stream, whole))
    eventually(lambda: used()["tokens_today"] == expected, within=5, because="both are counted")
    assert used()["requests_today"] == 2


def test_a_name_may_have_the_tag_that_clients_add(machine: Machine) -> None:
    """`bee:latest` is bee, and the answer bears the name of the request."""
    queen = QueenProcess(machine)

    assert queen.post("/api/chat", chat(model="bee:latest", stream=False))["model"] == "bee:latest"
    assert queen.post("/api/show", {"name": "bee:latest"})["capabilities"] == ["completion"]


def test_what_is_not_heeded_is_named_through_the_queen(machine: Machine) -> None:
    """The worker's header reaches the client, of a stream and of a whole answer, in each dialect."""
    queen = QueenProcess(machine)
    body = chat(keep_alive="5m", options={"num_ctx": 5, "num_predict": 1})
    queen.post("/api/chat", {"model": "bee"})
    tools = [{"type": "web_search"}]

    for path, given in (
        ("/api/chat", body),
        ("/api/chat", {**body, "stream": False}),
        ("/v1/chat/completions", {"model": "bee", "messages": HELLO, "max_tokens": 1, "tools": tools}),
        ("/v1/chat/completions", {"model": "bee", "messages": HELLO, "max_tokens": 1, "tools": tools, "stream": True}),
    ):
        expected = "keep_alive, options.num_ctx" if path == "/api/chat" else "tools: web_search"
        assert queen.http.post(path, json=given).headers["x-rbee-ignored"] == expected


@pytest.mark.parametrize("stream", [True, False])
def test_refusals_are_in_ollamas_form(machine: Machine, stream: bool) -> None:
    """Whoever refuses, the body is a text at `error` with what other routes tell beside it, and the status is right."""
    machine.fake(context=50)
    queen = QueenProcess(machine)
    queen.post("/api/chat", {"model": "bee"})
    long = [{"role": "user", "content": "bee " * 60}]

    refusals = {
        404: queen.http.post("/api/chat", json=chat(model="wasp", stream=stream)),
        400: queen.http.post("/api/chat", json=chat(messages=long, stream=stream)),
        401: queen.http.post("/api/chat", json=chat(stream=stream), headers={"Authorization": "Bearer nobody"}),
    }
    for status, answer in refusals.items():
        assert answer.status_code == status
        assert isinstance(answer.json()["error"], str)
    assert refusals[400].json()["code"] == "context_length_exceeded"
    assert "maximum context length is 50 tokens" in refusals[400].json()["error"]


def test_a_worker_that_dies_ends_the_stream_with_an_error(machine: Machine) -> None:
    """The last line of a stream that breaks is an error, and a whole answer is an HTTP error."""
    machine.fake(exit_after=7)
    queen = QueenProcess(machine)

    stream = queen.http.post("/api/chat", json=chat(options={}))
    whole = queen.http.post("/api/chat", json=chat(options={}, stream=False))

    last = lines(stream.text)[-1]
    assert (stream.status_code, last["code"]) == (200, "WORKER_CRASHED")
    assert "broke off" in last["error"]
    assert (whole.status_code, whole.json()["code"]) == (500, "WORKER_CRASHED")


def test_models_are_listed_with_what_is_known_of_them(machine: Machine) -> None:
    """Tags, running models and a description agree; what is loaded says until when it stays."""
    queen = QueenProcess(machine)
    assert queen.get("/api/ps") == {"models": []}
    queen.post("/api/chat", {"model": "bee"})
    eventually(lambda: queen.post("/api/show", {"model": "bee"})["template"], within=5, because="it is loaded")

    with queen.client("guest", models=["bee"]) as client:
        (tagged,) = client.get("/api/tags").json()["models"]
        (running,) = client.get("/api/ps").json()["models"]
        shown = client.post("/api/show", json={"model": "bee"}).json()

    assert tagged["name"] == running["name"] == "bee"
    assert tagged["size"] == running["size"] > 0
    assert tagged["capabilities"] == shown["capabilities"] == ["completion"]
    assert tagged["details"]["quantization_level"] == "Q4_1"
    assert shown["model_info"]["llama.context_length"] == running["context_length"] == 2048
    assert running["expires_at"] > tagged["modified_at"]
    assert str(machine.root) not in json.dumps([tagged, running, shown])


def test_ollamas_clients_find_a_server(machine: Machine) -> None:
    """What clients look for first is there: the root, by GET and HEAD, and a version that is new enough."""
    queen = QueenProcess(machine)

    assert queen.http.get("/").text == "Ollama is running"
    assert queen.http.head("/").status_code == 200
    assert queen.get("/api/version")["version"] >= "0.33"


def test_a_model_is_unloaded_with_no_time_to_stay(machine: Machine) -> None:
    """An empty request with `keep_alive` 0 ends the model's workers, for an operator; for others it is refused."""
    queen = QueenProcess(machine)
    queen.post("/api/generate", {"model": "bee"})
    with queen.client("guest", models=["bee"]) as client:
        refused = client.post("/api/generate", json={"model": "bee", "keep_alive": 0})
    assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
    assert len(queen.workers()) == 1

    answer = queen.post("/api/generate", {"model": "bee", "keep_alive": "0s"})

    assert (answer["done"], answer["done_reason"]) == (True, "unload")
    eventually(lambda: "POST /api/generate" in actions(machine), within=5, because="it is written down")
    assert queen.workers() == []


def test_a_model_is_fetched_and_removed_by_an_operator(machine: Machine) -> None:
    """Fetching tells its steps in lines, or once at its end; both it and removal are refused to clients."""
    queen = QueenProcess(machine)

    steps = lines(queen.http.post("/api/pull", json={"model": "bee"}).text)
    assert [steps[0]["status"], steps[-1]["status"]] == ["pulling manifest", "success"]
    assert queen.post("/api/pull", {"model": "bee", "stream": False}) == {"status": "success"}
    eventually(lambda: sizes(queen), within=5, because="it is in the catalog")
    with queen.client("guest") as client:
        assert client.post("/api/pull", json={"model": "bee"}).status_code == 403
        assert client.request("DELETE", "/api/delete", json={"model": "bee"}).status_code == 403

    assert queen.http.request("DELETE", "/api/delete", json={"model": "bee"}).status_code == 200
    eventually(lambda: not sizes(queen), within=5, because="it is gone")
    again = queen.http.request("DELETE", "/api/delete", json={"model": "bee"})
    assert (again.status_code, again.json()["code"]) == (404, "MODEL_NOT_FOUND")


def test_a_model_that_cannot_be_fetched_says_why(machine: Machine) -> None:
    """A name that is no reference is an error line in a stream, and an HTTP error else."""
    queen = QueenProcess(machine)

    last = lines(queen.http.post("/api/pull", json={"model": "llama3"}).text)[-1]
    whole = queen.http.post("/api/pull", json={"model": "llama3", "stream": False})

    assert last["code"] == whole.json()["code"] == "INVALID_MODEL_REF"
    assert whole.status_code == 400
