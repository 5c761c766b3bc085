"""llama-server's clients at the queen: which models are loaded, loading and unloading them, and what a worker tells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine import Machine
from tests.support.queens import QueenProcess, machine_with_fake
from tests.support.waiting import eventually, slowness

pytestmark = pytest.mark.process


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path) as machine:
        machine.tables["models"]["bee"] = f"file://{machine.root / 'model.gguf'}"
        yield machine


def card(queen: QueenProcess, path: str = "/models") -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in queen.get(path)["data"] if one["id"] == "bee")
    return found


def test_a_model_is_loaded_and_unloaded_by_its_name(machine: Machine) -> None:
    """Loading begins at once and the list tells how far it is; unloading answers when the memory is free again."""
    machine.fake(load_s=slowness())
    queen = QueenProcess(machine)
    assert card(queen)["status"] == {"value": "unloaded"}

    assert queen.post("/models/load", {"model": "bee"}) == {"success": True}
    assert card(queen)["status"] == {"value": "loading"}
    eventually(lambda: card(queen)["status"]["value"] == "loaded", within=15, because="it is loaded")
    assert queen.post("/models/load", {"model": "bee"}) == {"success": True}
    assert len(queen.workers()) == 1

    assert queen.post("/models/unload", {"model": "bee"}) == {"success": True}
    assert queen.workers() == []
    assert card(queen)["status"] == {"value": "unloaded"}
    assert queen.refused("POST", "/models/unload", {"model": "bee"})[1]["code"] == "WORKER_NOT_FOUND"


def test_only_an_operator_loads_and_unloads(machine: Machine) -> None:
    """A client's key may read which models are loaded, and change nothing of it."""
    queen = QueenProcess(machine)
    with queen.client("guest", models=["bee"]) as client:
        for path in ("/models/load", "/models/unload"):
            assert client.post(path, json={"model": "bee"}).status_code == 403
        assert [one["id"] for one in client.get("/models").json()["data"]] == ["bee"]
        assert client.get("/props", params={"model": "wasp"}).status_code == 403
    assert queen.workers() == []


def test_the_list_tells_what_a_model_can_do_and_how_long_a_request_may_be(machine: Machine) -> None:
    """Context and capabilities are in every list, also after the model was unloaded."""
    machine.configure("hive", context_length=512)
    queen = QueenProcess(machine)
    queen.post("/v1/completions", {"model": "bee", "prompt": "x", "max_tokens": 1})
    eventually(lambda: card(queen)["capabilities"], within=10, because="the chat template was opened")

    loaded = card(queen, "/v1/models")
    queen.post("/models/unload", {"model": "bee"})
    unloaded = queen.get("/v1/models/bee")

    assert loaded["context_length"] == loaded["meta"]["n_ctx"] == 512
    assert loaded["meta"]["n_ctx_train"] == 2048
    assert loaded["capabilities"] == ["completion"]
    assert loaded["status"] == {"value": "loaded"}
    assert unloaded == {**loaded, "status": {"value": "unloaded"}}


def test_a_worker_is_asked_by_the_name_of_its_model(machine: Machine) -> None:
    """Properties and slots are those of a worker of the model, by the client's name for it; tokens come from it too."""
    queen = QueenProcess(machine)
    assert queen.get("/props")["role"] == "router"
    assert queen.refused("GET", "/props?model=bee")[1]["code"] == "WORKER_NOT_FOUND"
    assert queen.refused("GET", "/slots")[1]["param"] == "model"

    tokens = queen.post("/tokenize", {"model": "bee", "content": "a bee flies"})["tokens"]
    with queen.client("guest", models=["bee"]) as client:
        props = client.get("/props", params={"model": "bee"}).json()
        slots = client.get("/slots", params={"model": "bee"}).json()

    assert queen.post("/detokenize", {"model": "bee", "tokens": tokens})["content"] == "a bee flies"
    messages = [{"role": "user", "content": "Bees?"}]
    assert "Bees?" in queen.post("/apply-template", {"model": "bee", "messages": messages})["prompt"]
    assert (props["model_alias"], props["model_path"]) == ("bee", "bee")
    assert len(slots) == props["total_slots"]


def test_what_is_no_stream_is_answered_whole(machine: Machine) -> None:
    """A route whose answer never is a stream answers, whatever a client says of streams."""
    machine.fake(embedding=4)
    queen = QueenProcess(machine)

    for path in ("/v1/embeddings", "/api/embed"):
        answer = queen.http.post(path, json={"model": "bee", "input": "x", "stream": True})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
