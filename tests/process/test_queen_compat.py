"""Other people's clients at the queen: found by name, placed, relayed untouched, broken off in words they read."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import openai
import pytest

from tests.support.machine import Machine
from tests.support.queens import QueenProcess, machine_with_fake, parsed
from tests.support.waiting import eventually, slowness

pytestmark = pytest.mark.process

CHAT = "/v1/chat/completions"
HELLO: Any = [{"role": "user", "content": "Bees?"}]
LONG: Any = [{"role": "user", "content": "bee " * 60}]


@contextmanager
def machine_with_bee(root: Path) -> Iterator[Machine]:
    with machine_with_fake(root) as machine:
        machine.tables["models"]["bee"] = f"file://{machine.root / 'model.gguf'}"
        yield machine


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_bee(tmp_path) as machine:
        yield machine


@pytest.fixture(scope="module", name="queen")
def _queen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QueenProcess]:
    """Give one queen to all tests that neither set it up in a way of their own nor harm it or its worker."""
    with machine_with_bee(tmp_path_factory.mktemp("shared")) as machine:
        yield QueenProcess(machine)


def listed_by(queen: QueenProcess) -> set[str]:
    return {card["id"] for card in queen.get("/v1/models")["data"]}


def request_body(model: str = "bee", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": HELLO, "max_tokens": 5, **more}


def streamed(queen: QueenProcess, path: str, body: dict[str, Any]) -> tuple[int, list[str]]:
    with queen.http.stream("POST", path, json={**body, "stream": True}) as response:
        return response.status_code, list(response.iter_lines())


def test_a_cold_chat_brings_up_what_it_needs_and_tells_it_in_comments(machine: Machine) -> None:
    """A stream that waits for a load is told so in comments, then has its answer; a warm one has no comments."""
    machine.fake(load_s=3 * slowness())
    queen = QueenProcess(machine)

    cold = streamed(queen, CHAT, request_body())
    warm = streamed(queen, CHAT, request_body())

    comments = [line for line in cold[1] if line.startswith(":")]
    assert any("starting one on localhost" in line for line in comments)
    assert any("layers_loaded" in line for line in comments)
    assert not [line for line in warm[1] if line.startswith(":")]
    for status, lines in (cold, warm):
        assert status == 200
        assert lines[-2:] == ["data: [DONE]", ""]
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events) == (
            "Honey bees, bumble bees and"
        )
    assert len(queen.workers()) == 1


def test_anthropic_clients_are_refused_in_their_own_form(machine: Machine) -> None:
    """Every refusal on Anthropic's routes has its outer type and one of its error types, whoever refuses."""
    machine.fake(context=10)
    queen = QueenProcess(machine)
    body = request_body()
    refusals = {
        "authentication_error": httpx.post(f"{queen.url}/v1/messages", json=body, timeout=60, trust_env=False),
        "not_found_error": queen.http.post("/v1/messages", json={**body, "model": "nobody"}),
        "invalid_request_error": queen.http.post("/v1/messages", json={**body, "messages": HELLO * 20}),
        "request_too_large": queen.http.post("/v1/messages/count_tokens", content=b" " * 5_000_000),
    }

    for kind, response in refusals.items():
        answer = response.json()
        assert (answer["type"], answer["error"]["type"]) == ("error", kind), answer
    assert "error" in queen.http.post(CHAT, json={**body, "model": "nobody"}).json()
    assert "type" not in queen.http.post(CHAT, json={**body, "model": "nobody"}).json()


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/completions", b'{"model":"bee","prompt":[' + b"{}," * 1_300_000 + b"{}]}", 413),
        ("/v2/tasks", b"{" + b",".join(b'"%x":1' % number for number in range(350_000)) + b"}", 413),
        ("/v1/completions", b'{"model":"bee","prompt":[' + b"{}," * 60_000 + b"{}]}", 400),
        ("/v1/completions", b'{"model":"bee","prompt":[' + b"1.5," * 900_000 + b"1.5]}", 400),
        ("/v2/tasks", b"{" + b",".join(b'"%x":1' % number for number in range(60_000)) + b"}", 400),
    ],
    ids=["objects", "names", "fewer objects", "numbers", "fewer names"],
)
def test_a_malformed_body_costs_nobody_anything(queen: QueenProcess, path: str, body: bytes, code: int) -> None:
    """Bodies of megabytes that are wrong all over are refused at once by queen and worker, with ten errors at most."""
    assert queen.http.post(CHAT, json=request_body()).status_code == 200
    began = time.monotonic()

    answer = queen.http.post(path, content=body)

    assert time.monotonic() - began < 2 * slowness()
    assert answer.status_code == code
    assert len(answer.json()["error"]["details"].get("errors", [])) <= 10
    assert len(answer.content) < 10_000


def test_a_chat_at_once_waits_for_a_load_and_longer_than_a_stream_may_be_silent(machine: Machine) -> None:
    """An answer at once comes when it is whole, also if that takes longer than a stream may go without a token."""
    machine.configure("queen", no_token_timeout_s=1.0)
    machine.fake(load_s=1, tokens_per_s=5)
    queen = QueenProcess(machine)

    answer = queen.http.post(CHAT, json=request_body(max_tokens=12))

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["usage"]["completion_tokens"] == 12
    assert answer.json()["model"] == "bee"


def test_answers_at_once_run_side_by_side(machine: Machine) -> None:
    """A request whose answer comes whole gives its place in the line up when it has its slot, not at its end."""
    machine.configure("hive", slots=2)
    machine.fake(tokens_per_s=10)
    queen = QueenProcess(machine)
    assert queen.http.post(CHAT, json=request_body(max_tokens=1)).status_code == 200
    answers: list[int] = []

    def ask() -> None:
        with httpx.Client(base_url=queen.url, headers=queen.http.headers, trust_env=False, timeout=60) as client:
            answers.append(client.post(CHAT, json=request_body(max_tokens=40)).status_code)

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    eventually(lambda: queen.worker()["slots_available"] == 0, within=5, because="both have a slot")
    for thread in asking:
        thread.join()

    assert answers == [200, 200]


@pytest.mark.parametrize(
    ("path", "body", "end"),
    [
        ("/v1/completions", {"prompt": "x", "max_tokens": 3}, "data: [DONE]"),
        ("/v1/messages", {"messages": HELLO, "max_tokens": 3}, "message_stop"),
        ("/v1/responses", {"input": "x", "max_output_tokens": 3}, "response.incomplete"),
    ],
)
def test_every_dialect_is_relayed(queen: QueenProcess, path: str, body: dict[str, Any], end: str) -> None:
    """Each route of the worker is one of the queen's, streamed to its own kind of end, and at once."""
    status, lines = streamed(queen, path, {"model": "bee", **body})

    assert status == 200
    assert end in "\n".join(lines[-4:])
    assert queen.http.post(path, json={"model": "bee", **body}).status_code == 200
    count = queen.http.post("/v1/messages/count_tokens", json={"model": "bee", "messages": HELLO})
    assert count.json()["input_tokens"] > 0


def test_what_is_not_heeded_is_named_through_the_queen(queen: QueenProcess) -> None:
    """The header in which a worker names tools that it leaves out reaches the client, streamed or not."""
    body = request_body(tools=[{"type": "web_search"}])

    whole = queen.http.post(CHAT, json=body)
    with queen.http.stream("POST", CHAT, json={**body, "stream": True}) as response:
        response.read()

    assert whole.headers["x-rbee-ignored"] == response.headers["x-rbee-ignored"] == "tools: web_search"
    assert "x-rbee-ignored" not in queen.http.post(CHAT, json=request_body()).headers


def test_documents_are_ranked_through_the_queen(machine: Machine) -> None:
    """A model that ranks is found, loaded and asked like any other, and refused for a chat in its worker's words."""
    machine.fake(ranks=True)
    queen = QueenProcess(machine)

    answer = queen.http.post("/v1/rerank", json={"model": "bee", "query": "bees", "documents": ["wasps", "bees"]})
    status, error = queen.refused("POST", CHAT, request_body())

    assert answer.status_code == 200
    assert answer.json()["model"] == "bee"
    assert [(one["index"], one["relevance_score"]) for one in answer.json()["results"]] == [(1, 1.0), (0, 0.0)]
    assert (status, error["param"]) == (400, "model")
    assert "is a reranking model" in error["message"]
    assert len(queen.workers()) == 1


def test_models_are_found_by_their_names(queen: QueenProcess) -> None:
    """An alias, the reference and the file's name mean one model; the list has them; another name is not found."""
    assert queen.http.post(CHAT, json=request_body()).status_code == 200

    for name in (queen.model, "model.gguf", "model"):
        assert queen.http.post(CHAT, json=request_body(name)).status_code == 200, name
    assert len(queen.workers()) == 1
    eventually(lambda: {"bee", queen.model} <= listed_by(queen), within=5, because="the hive tells of its catalog")
    listed = listed_by(queen)
    for name in (*listed, "model.gguf", "model"):
        card = queen.get(f"/v1/models/{quote(name, safe='')}")
        assert (card["id"], card["object"]) == (name, "model")
        assert card["created"] > 0
    for name in ("gpt-4", "hf:no/model"):
        status, error = queen.refused("GET", f"/v1/models/{name}")
        assert (status, error["code"]) == (404, "MODEL_NOT_FOUND")
    status, error = queen.refused("POST", CHAT, request_body("gpt-4"))
    assert (status, error["code"], error["param"]) == (404, "MODEL_NOT_FOUND", "model")
    assert set(error["details"]["models"]) == listed
    assert "bee" in error["message"]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {"messages": LONG}, "messages"),
        ("/v1/completions", {"prompt": "bee " * 60}, "prompt"),
        ("/v1/responses", {"input": "bee " * 60}, "input"),
        ("/v1/messages", {"messages": LONG, "max_tokens": 5}, "messages"),
        ("/v1/messages", {"messages": LONG, "max_tokens": 5, "stream": True}, "messages"),
        ("/v2/tasks", {"prompt": "bee " * 60}, "prompt"),
    ],
    ids=["chat", "completions", "responses", "messages", "stream", "tasks"],
)
def test_a_prompt_beyond_the_context_is_refused_in_the_words_of_clients(
    machine: Machine, path: str, body: dict[str, Any], param: str
) -> None:
    """Overflow has the code and the words by which clients know it, in every dialect, and for clients' keys too.

    The field is named as the request has it.
    """
    machine.fake(context=50)
    queen = QueenProcess(machine)
    assert queen.http.post(CHAT, json=request_body(max_tokens=1)).status_code == 200
    given = {"model": queen.model if path == "/v2/tasks" else "bee", **body}

    with queen.client("guest", models=["bee"]) as client:
        answer = client.post(path, json=given)

    if path == "/v2/tasks":
        assert '"code": "context_length_exceeded"' in answer.text
    else:
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert f'"param":"{param}"' in answer.text.replace(": ", ":")
    assert "maximum context length is 50 tokens" in answer.text
    assert re.search(r"prompt is too long: \d+ tokens > 49 maximum", answer.text)


@pytest.mark.parametrize("half", [rb"\ud83d", rb"\ude00", b"\xed\xa0\xbd"], ids=["first", "second", "encoded"])
def test_half_a_character_is_replaced(queen: QueenProcess, half: bytes) -> None:
    """A text that a program cut in the middle of a character is taken, with U+FFFD in its place, on every route."""
    own = queen.request_body(prompt="HALF", raw=True)

    for path, body in (("/v1/completions", {"model": "bee", "prompt": "a HALF b", "echo": True}), ("/v2/tasks", own)):
        answer = queen.http.post(path, content=json.dumps(body).encode().replace(b"HALF", half))
        assert answer.status_code == 200, answer.text
        assert "error" not in answer.text
        if path == "/v1/completions":
            assert answer.json()["choices"][0]["text"].startswith("a \ufffd b")


@pytest.mark.parametrize("stream", [True, False])
def test_what_the_worker_refuses_is_refused_with_its_status(queen: QueenProcess, stream: bool) -> None:
    """A request that the worker refuses is an HTTP error with the worker's own words, streamed or not."""
    assert queen.http.post(CHAT, json=request_body()).status_code == 200

    status, error = queen.refused("POST", CHAT, request_body(n=1000, stream=stream))

    assert (status, error["code"], error["param"]) == (400, "INVALID_REQUEST", "n")


@pytest.mark.parametrize("body", [b"hello", b'{"model": "be', b"[]", b"{}", b'{"model": 3}', b"[" * 50_000])
def test_a_body_that_names_no_model_is_refused(queen: QueenProcess, body: bytes) -> None:
    """What is no JSON object with a model is INVALID_REQUEST before anything is started."""
    before = queen.workers()

    answer = queen.http.post(CHAT, content=body)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "INVALID_REQUEST"
    assert [row["worker_id"] for row in queen.workers()] == [row["worker_id"] for row in before]


def test_without_the_key_nothing_is_told(queen: QueenProcess) -> None:
    """The routes want the queen's key, as a bearer or in Anthropic's header."""
    key = queen.http.headers["Authorization"].removeprefix("Bearer ")

    assert httpx.get(f"{queen.url}/v1/models", trust_env=False).status_code == 401
    assert httpx.post(f"{queen.url}{CHAT}", json=request_body(), trust_env=False).status_code == 401
    assert httpx.get(f"{queen.url}/v1/models", headers={"x-api-key": key}, trust_env=False).status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_slot(machine: Machine, stream: bool) -> None:
    """Who hangs up stops the generation, also if the answer was to come whole."""
    machine.fake(tokens_per_s=20)
    queen = QueenProcess(machine)
    assert queen.http.post(CHAT, json=request_body()).status_code == 200
    stop = threading.Event()

    def leave() -> None:
        body = request_body(max_tokens=2000, stream=stream)
        patience = 60 if stream else 2 * slowness()  # it leaves an answer that comes whole when that is over
        with httpx.Client(base_url=queen.url, headers=queen.http.headers, trust_env=False, timeout=patience) as client:
            try:
                with client.stream("POST", CHAT, json=body) as response:
                    stop.wait(60)
                    response.close()
            except httpx.TimeoutException:
                pass

    leaving = threading.Thread(target=leave, daemon=True)
    leaving.start()
    eventually(lambda: not queen.all_idle(), within=5, because="the request runs")
    stop.set()
    leaving.join()

    eventually(queen.all_idle, within=5, because="the slot is free")
    eventually(lambda: queen.get("/v2/status")["tasks_running"] == 0, within=5, because="the task is gone")


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_its_grammar_ends_is_the_workers_error(machine: Machine, stream: bool) -> None:
    """What a worker finds while it answers is told with its code and reason, in a stream and in a whole answer."""
    machine.fake(grammar_fails_after=3)
    queen = QueenProcess(machine)

    answer = queen.http.post(CHAT, json=request_body(grammar='root ::= "a"+', stream=stream))

    told = [data for _, data in parsed(iter(answer.text.splitlines()))][-1] if stream else answer.json()
    assert (answer.status_code, told["error"]["code"]) == (200 if stream else 400, "INVALID_REQUEST")
    assert "configured to fail its grammars" in told["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": HELLO}),
        ("/v1/messages", {"messages": HELLO, "max_tokens": 100}),
        ("/v1/responses", {"input": "x"}),
    ],
)
def test_a_worker_that_dies_in_mid_stream_is_an_error_its_client_reads(
    machine: Machine, path: str, body: dict[str, Any]
) -> None:
    """A stream that breaks ends with an error event of its dialect, and an answer at once with an HTTP error."""
    machine.fake(exit_after=7)
    queen = QueenProcess(machine)

    status, lines = streamed(queen, path, {"model": "bee", **body})
    whole = queen.http.post(path, json={"model": "bee", **body})

    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    assert status == 200
    assert events[-1]["error"]["code"] == "WORKER_CRASHED"
    if path == "/v1/responses":
        assert events[-2]["type"] == "response.failed"
        assert events[-2]["response"]["error"]["code"] == "WORKER_CRASHED"
        assert events[-2]["response"]["id"] == events[0]["response"]["id"]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert whole.status_code == 500
    assert whole.json()["error"]["code"] == "WORKER_CRASHED"


def test_the_official_client_sees_the_break(machine: Machine) -> None:
    """OpenAI's client raises its own exception at a stream that breaks, and reads a good one to its end."""
    machine.fake(exit_after=30)
    queen = QueenProcess(machine)
    key = queen.http.headers["Authorization"].removeprefix("Bearer ")

    with openai.OpenAI(base_url=f"{queen.url}/v1", api_key=key, max_retries=0) as client:
        good = client.chat.completions.create(model="bee", messages=HELLO, max_tokens=5, stream=True)
        assert [chunk.choices[0].finish_reason for chunk in good][-1] == "length"
        bad = client.chat.completions.create(model="bee", messages=HELLO, max_tokens=100, stream=True)
        with pytest.raises(openai.APIError, match="broke off"):
            list(bad)
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt-4", messages=HELLO)
