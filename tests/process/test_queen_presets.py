"""Presets and fallbacks of declared models, as clients see them, on a real queen and hive with fake engines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gguf_files import write_gguf
from tests.support.machine import Machine
from tests.support.queens import Event, QueenProcess, ended_well, machine_with_fake, named, told

pytestmark = pytest.mark.process

HELLO = [{"role": "user", "content": "Hello"}]
CHAT = {"messages": HELLO, "max_tokens": 5}
HEADER = "x-rbee-fallback"
# Nowhere: no machine of this name is registered.
ELSEWHERE = {"nodes": ["attic"]}


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path, replies={"Be brief.": "Yes."}, dies_of="poison") as machine:
        yield machine


@pytest.fixture(name="queen")
def _queen(machine: Machine) -> QueenProcess:
    return QueenProcess(machine)


def declare(queen: QueenProcess, name: str, **more: Any) -> None:
    path = queen.machine.root / f"{name}.gguf"
    if not path.exists():
        write_gguf(path)
    response = queen.http.put(f"/v2/served/{name}", json={"model": f"file://{path}", **more})
    assert response.status_code == 200, response.text


def test_a_preset_gives_requests_what_they_do_not_say(queen: QueenProcess) -> None:
    """System prompt and limit, in every dialect; the client's own words win, and the answer has the preset's name."""
    declare(queen, "chat", presets={"brief": {"system": "Be brief.", "max_tokens": 3}, "short": {"max_tokens": 3}})

    def answer(path: str, **fields: Any) -> Any:
        return queen.post(path, {"model": "brief", "stream": False, **fields})

    chat = answer("/v1/chat/completions", messages=HELLO)
    assert (chat["model"], chat["choices"][0]["message"]["content"]) == ("brief", "Yes.")
    own = [{"role": "developer", "content": "Sing."}, *HELLO]
    longer = answer("/v1/chat/completions", messages=own, max_completion_tokens=7)
    assert longer["usage"]["completion_tokens"] == 7
    assert answer("/v1/completions", prompt="Hello")["usage"]["completion_tokens"] == 3
    message = answer("/v1/messages", messages=HELLO)
    assert (message["model"], message["content"][0]["text"]) == ("brief", "Yes.")
    assert (
        answer("/v1/messages/count_tokens", messages=HELLO)["input_tokens"]
        > (queen.post("/v1/messages/count_tokens", {"model": "chat", "messages": HELLO})["input_tokens"])
    )
    response = answer("/v1/responses", input="Hello")
    assert (response["model"], response["output"][0]["content"][0]["text"]) == ("brief", "Yes.")
    assert answer("/api/chat", messages=HELLO)["message"]["content"] == "Yes."
    assert answer("/api/generate", prompt="Hello")["response"] == "Yes."
    assert "Be brief." in answer("/apply-template", messages=HELLO)["prompt"]
    events = queen_task(queen, "brief")
    assert "".join(data["token"] for data in messages(events) if "token" in data) == "Yes."
    assert messages(queen_task(queen, "short"))[-1]["total_tokens"] == 3
    ran = queen.machine.run("rbee-keeper", "infer", "--model", "short", "--prompt", "Hello", "--json", "--quiet")
    assert [json.loads(line)["total_tokens"] for line in ran.stdout.splitlines() if '"done"' in line] == [3]


def messages(events: list[Event]) -> list[Any]:
    """Give the tokens of a task, and its end."""
    return [data for data in named(events, "message") if data != "[DONE]"]


def queen_task(queen: QueenProcess, model: str, **fields: Any) -> list[Event]:
    with queen.streaming("/v2/tasks", {"model": model, "prompt": "Hello", **fields}) as events:
        return list(events)


def test_a_stream_of_a_preset_is_a_stream(queen: QueenProcess) -> None:
    """What the queen writes anew is still read as the client meant it; a redirect would send the client's own body."""
    declare(queen, "chat", presets={"short": {"max_tokens": 3}, "same": {}})
    with queen.streaming("/v1/chat/completions", {"model": "short", "messages": HELLO, "stream": True}) as events:
        chunks = [data for _, data in events if isinstance(data, dict)]
    assert {chunk["model"] for chunk in chunks} == {"short"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    direct = {"X-Rbee-Direct": "true"}
    statuses = {
        name: queen.http.post("/v1/chat/completions", json={"model": name, **CHAT}, headers=direct).status_code
        for name in ("chat", "same")
    }
    assert statuses == {"chat": 307, "same": 307}
    body = {"model": "short", "messages": HELLO}
    assert queen.http.post("/v1/chat/completions", json=body, headers=direct).status_code == 200


def test_a_fallback_answers_where_the_model_cannot_be_served(queen: QueenProcess) -> None:
    """The first that can, by name or preset; a header and the answer say which, also for a key that may not name it."""
    declare(queen, "lost", where=ELSEWHERE)
    (queen.machine.root / "broken.gguf").write_bytes(b"GGUF no more")
    declare(queen, "broken")
    declare(queen, "chat", presets={"brief": {"system": "Be brief."}})
    declare(queen, "big", where=ELSEWHERE, fallback=["lost", "broken", "brief"], presets={"big-2": {"max_tokens": 2}})

    for name in ("big", "big-2"):
        answer = queen.http.post("/v1/chat/completions", json={"model": name, "messages": HELLO})
        assert (answer.status_code, answer.headers[HEADER]) == (200, "brief"), answer.text
        assert answer.json()["model"] == "brief"
        # The presets are those of the fallback, not those of what was asked for.
        assert answer.json()["choices"][0]["message"]["content"] == "Yes."
    with queen.http.stream("POST", "/v1/messages", json={"model": "big", "stream": True, **CHAT}) as stream:
        assert stream.headers[HEADER] == "brief"
        assert '"model": "brief"' in stream.read().decode()
    ollama = queen.http.post("/api/chat", json={"model": "big:latest", "messages": HELLO, "stream": False})
    assert (ollama.headers[HEADER], ollama.json()["model"]) == ("brief", "brief")
    assert HEADER not in queen.http.post("/v1/chat/completions", json={"model": "chat", **CHAT}).headers

    events = queen_task(queen, "big")
    assert ended_well(events), events
    assert [data["model"] for data in named(events, "narration") if data["action"] == "fallback"] == [
        "lost",
        "broken",
        "brief",
    ]
    assert "big cannot be served now" in told(events)

    with queen.client("guest", models=["big"]) as client:
        answer = client.post("/v1/chat/completions", json={"model": "big", **CHAT})
        assert (answer.status_code, answer.headers[HEADER]) == (200, "brief")
        assert client.post("/v1/chat/completions", json={"model": "brief", **CHAT}).status_code == 403
        with client.stream("POST", "/v2/tasks", json={"model": "big", "prompt": "Hello"}) as stream:
            text = stream.read().decode()
        assert "the model cannot be served now: using brief instead" in text
        assert "attic" not in text


def test_where_no_fallback_helps_the_first_error_is_told(queen: QueenProcess) -> None:
    """With what was tried; vectors and counts never come from another model; what is wrong with a request stays so."""
    declare(queen, "lost", where=ELSEWHERE)
    declare(queen, "big", where={"backend": "cuda"}, fallback=["lost"])
    for path, fields in (("/v1/chat/completions", CHAT), ("/v2/tasks", {"prompt": "Hello"})):
        status, error = queen.refused("POST", path, {"model": "big", **fields})
        assert (status, error["code"]) == (503, "BACKEND_UNAVAILABLE"), error
        assert "it does not have cuda" in error["message"]
        (tried,) = error["details"]["fallbacks"]
        assert (tried["name"], tried["code"]) == ("lost", "NODE_NOT_FOUND")
    declare(queen, "chat")
    declare(queen, "big", where={"backend": "cuda"}, fallback=["lost", "chat"])
    status, error = queen.refused("POST", "/v1/embeddings", {"model": "big", "input": "x"})
    assert (status, error["code"]) == (503, "BACKEND_UNAVAILABLE")
    assert "fallbacks" not in error["details"]
    with queen.client("guest") as client:
        declare(queen, "big", where={"backend": "cuda"}, fallback=["lost"])
        error = client.post("/v1/chat/completions", json={"model": "big", **CHAT}).json()["error"]
        assert error["details"] == {"fallbacks": ["lost"]}


def test_what_ran_when_its_worker_crashed_is_not_tried_elsewhere(queen: QueenProcess) -> None:
    """A request that ends workers would end those of the fallback too; one that the worker refuses is refused."""
    declare(queen, "chat")
    declare(queen, "big", fallback=["chat"])
    status, error = queen.refused(
        "POST", "/v1/chat/completions", {"model": "big", "messages": [{"role": "user", "content": "poison"}]}
    )
    assert (status, error["code"]) == (500, "WORKER_CRASHED")
    assert queen.refused("POST", "/v1/chat/completions", {"model": "big", "messages": HELLO, "n": 999})[0] == 400
    long = [{"role": "user", "content": "bees " * 9000}]
    assert queen.refused("POST", "/v1/chat/completions", {"model": "big", "messages": long})[0] == 400
    assert {row["served"] for row in queen.workers()} <= {"big"}


def test_a_model_without_memory_falls_back_to_one_that_is_free(tmp_path: Path) -> None:
    """Where a busy model holds the memory, a fallback with a free slot answers; without one, the request waits."""
    (tmp_path / "need").mkdir()
    with machine_with_fake(tmp_path / "need") as machine:
        queen = QueenProcess(machine)
        queen.task()
        need = queen.worker()["need_bytes"]
    with machine_with_fake(tmp_path, tokens_per_s=40) as machine:
        machine.configure("hive", cpu_memory_gb=1.5 * need / 1e9, slots=2)
        queen = QueenProcess(machine)
        declare(queen, "a")
        declare(queen, "b", fallback=["a"])
        long = queen.aside(model="a", max_tokens=200)
        long.tokens(5)
        quick = queen.task(model="b")
        assert "using a instead" in told(quick)
        assert ended_well(quick)
        other = queen.aside(model="a", max_tokens=30)
        other.tokens(2)
        patient = queen.task(model="b")
        assert "waits for memory on localhost" in told(patient)
        assert ended_well(patient)
        assert ended_well(other.ended())
        assert ended_well(long.ended())
        assert "instead" not in told(queen.task(model="b"))
