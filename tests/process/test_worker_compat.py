"""Other people's interfaces at a worker: what is refused, how streams end, how calls are told; with the fake engine."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.waiting import eventually
from tests.support.worker import KEY, Worker, worker

pytestmark = pytest.mark.process

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Bees?"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
BROKEN = {"type": "bee"}
DEEP: dict[str, Any] = json.loads('{"items":' * 70 + "{}" + "}" * 70)


def tool_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "deep", "parameters": schema}}


@pytest.fixture(scope="module", name="it")
def _it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker of two slots whose template knows no tools."""
    fake = {"tokens_per_s": 200, "context": 400, "length": 10}
    with worker(
        tmp_path_factory.mktemp("worker"), "--slots", "2", "--model-ref", "hf:bees/Bees-GGUF:bee.gguf", fake=fake
    ) as it:
        it.until_idle()
        yield it


def chunks(it: Worker, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    with it.http.stream("POST", path, json={**body, "stream": True}) as response:
        assert response.status_code == 200, response.read()
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": HELLO, **fields}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (CHAT, chat(n=1000), "n"),
        (CHAT, chat(n=0), "n"),
        (CHAT, chat(grammar=""), "grammar"),
        (CHAT, chat(grammar="root ::= " + "(" * 45_000 + '"a"' + ")" * 45_000), "grammar"),
        (CHAT, chat(response_format={"type": "json_schema", "json_schema": {"schema": BROKEN}}), "response_format"),
        (CHAT, chat(response_format={"type": "json_schema", "json_schema": {"schema": DEEP}}), "response_format"),
        (CHAT, chat(response_format={"type": "json_schema"}), "response_format"),
        (CHAT, chat(response_format={"type": "xml"}), "response_format.type"),
        (CHAT, chat(tools=[{"type": "function"}]), "tools.0"),
        (CHAT, chat(tools=[TOOL, TOOL]), "tools.1"),
        (CHAT, chat(tools=[tool_of(DEEP)]), "tools.0.function.parameters"),
        (CHAT, chat(tools=[tool_of({"enum": list(range(10_001))})]), "tools.0.function.parameters"),
        (CHAT, chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "other"}}), "tool_choice"),
        (CHAT, chat(tools=[{"type": "function", "function": {"name": "a b"}}]), "tools.0.function.name"),
        (CHAT, chat(tools=[{"type": "function", "function": {"name": "a", "parameters": 3}}]), None),
        (CHAT, chat(tool_choice="required"), "tool_choice"),
        (CHAT, {"messages": [{"content": "x"}]}, "messages.0.role"),
        (CHAT, {"messages": [{"role": "king", "content": "x"}]}, "messages.0.role"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages.0"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": HELLO * 10_000}, "messages"),
        (CHAT, {}, "messages"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}]},
            "messages.0.content.0",
        ),
        (CHAT, chat(logit_bias={str(2**31 - 1): 1}), "logit_bias"),
        (CHAT, chat(logit_bias={"9999999999": 1}), "logit_bias"),
        (CHAT, chat(logit_bias={"bee": 1}), "logit_bias"),
        (CHAT, chat(logit_bias={"1": 101}), "logit_bias.1"),
        (CHAT, chat(top_logprobs=3), None),
        (CHAT, chat(temperature=3), "temperature"),
        ("/v1/completions", {"prompt": ["x"] * 100, "n": 3}, "prompt"),
        (CHAT, chat(max_completion_tokens=-2), "max_completion_tokens"),
        ("/v1/completions", {"prompt": []}, "prompt"),
        ("/v1/completions", {"prompt": "x", "suffix": "y"}, "suffix"),
        ("/v1/completions", {"prompt": "x", "best_of": 4}, "best_of"),
        ("/v1/completions", {"prompt": ["x"] * 257}, "prompt"),
        ("/v1/completions", {"prompt": [2**31 - 1]}, "prompt"),
        ("/v1/embeddings", {"input": "x"}, "model"),
        ("/v1/embeddings", {}, "input"),
        ("/v1/rerank", {"query": "x", "documents": ["y"]}, "model"),
        ("/v1/rerank", {"documents": ["y"]}, "query"),
        ("/v1/rerank", {"query": "", "documents": ["y"]}, "query"),
        ("/v1/rerank", {"query": ["x"], "documents": ["y"]}, "query"),
        ("/v1/rerank", {"query": "x"}, "documents"),
        ("/v1/rerank", {"query": "x", "documents": []}, "documents"),
        ("/v1/rerank", {"query": "x", "documents": "y"}, "documents"),
        ("/v1/rerank", {"query": "x", "documents": ["y"] * 1001}, "documents"),
        ("/v1/rerank", {"query": "x", "documents": ["y", ""]}, "documents.1"),
        ("/v1/rerank", {"query": "x", "documents": ["y", 3]}, "documents.1"),
        ("/v1/rerank", {"query": "x", "documents": [{"title": "y"}]}, None),
        ("/v1/rerank", {"query": "x" * 2_000_001, "documents": ["y"]}, "query"),
        ("/v1/rerank", {"query": "x", "documents": ["y" * 2_000_001]}, None),
        ("/v1/rerank", {"query": "x", "documents": ["y"], "top_n": 0}, "top_n"),
        ("/v1/messages", {"messages": HELLO}, "max_tokens"),
        ("/v1/messages", {"max_tokens": 5, "messages": [{"role": "user", "content": [{"type": "image"}]}]}, None),
        ("/v1/messages", {"max_tokens": 5, "messages": HELLO, "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ("/v1/responses", {"input": ""}, "input"),
        ("/v1/responses", {"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
        ("/v1/responses", {"input": "x", "conversation": "conv_1"}, "conversation"),
        ("/v1/responses", {"input": "x", "thread": {"id": "t"}}, "thread"),
        ("/v1/responses", {"input": "x", "tools": [{"type": "function", "name": "a b"}]}, "tools.0"),
        ("/v1/messages", {"max_tokens": 5, "messages": HELLO, "tools": [{"input_schema": {}}]}, "tools.0"),
    ],
)
def test_bad_requests_are_named(it: Worker, path: str, body: dict[str, Any], field: str | None) -> None:
    """What cannot be is INVALID_REQUEST that names the field, and costs nothing."""
    response = it.http.post(path, json=body)

    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["code"], error["type"]) == ("INVALID_REQUEST", "invalid_request_error")
    if field is not None:
        assert error["param"] == field
    assert it.json("/v1/slots")["slots_available"] == 2


@pytest.mark.parametrize("body", [b"hello", b'{"messages": [{"role": "us', b"", b"[]", b"[" * 50_000, b"\xff\xfe"])
def test_a_body_that_is_no_request_is_refused(it: Worker, body: bytes) -> None:
    """A body that is not JSON, is cut in half, or is JSON of another kind is INVALID_REQUEST."""
    response = it.http.post(CHAT, content=body)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "INVALID_REQUEST"


def test_a_header_of_a_megabyte_is_refused(it: Worker) -> None:
    """A head beyond the limit is 431 with our error body, long before it has been read."""
    with socket.create_connection(("127.0.0.1", it.http.base_url.port or 0), timeout=10) as sock:
        sock.sendall(b"GET /v1/health HTTP/1.1\r\nX-Bee: " + b"z" * 200_000)
        answer = sock.recv(65536)

    assert answer.startswith(b"HTTP/1.1 431 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "HEADER_TOO_LARGE"


def test_a_client_that_leaves_in_the_middle_of_its_request_is_no_bug(it: Worker) -> None:
    """A request of which only half comes is noted as canceled, on every route."""
    for path in (CHAT, "/v1/inference"):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 100\r\n\r\n"
        with socket.create_connection(("127.0.0.1", it.http.base_url.port or 0), timeout=10) as sock:
            sock.sendall(head.encode() + b'{"mess')

    eventually(lambda: it.tail().count('"status": 499') >= 2, within=5, because="both are noted")


def test_fields_that_nobody_knows_are_accepted(it: Worker) -> None:
    """Fields that this server does not know are let through, as these clients expect."""
    body = chat(max_tokens=2, service_tier="auto", user="me", some_new_thing={"a": 1})

    assert it.http.post(CHAT, json=body).json()["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("name", ["hf:bees/Bees-GGUF:bee.gguf", None])
def test_the_model_is_known_by_its_names(it: Worker, name: str | None) -> None:
    """A request may name the model by its reference, or not at all."""
    response = it.http.post(CHAT, json=chat(model=name, max_tokens=1))

    assert response.status_code == 200
    assert response.json()["model"] == "hf:bees/Bees-GGUF:bee.gguf"


def test_another_model_is_not_there(it: Worker) -> None:
    """A request for another model is MODEL_NOT_FOUND, and says what there is."""
    response = it.http.post(CHAT, json=chat(model="gpt-4"))

    assert response.status_code == 404
    assert response.json()["error"]["details"] == {"models": ["hf:bees/Bees-GGUF:bee.gguf"]}
    assert it.json("/v1/models")["data"][0]["id"] == "hf:bees/Bees-GGUF:bee.gguf"
    assert it.json("/v1/models/hf:bees/Bees-GGUF:bee.gguf")["id"] == "hf:bees/Bees-GGUF:bee.gguf"
    assert it.http.get("/v1/models/gpt-4").status_code == 404
    assert it.http.get("/health", headers={"Authorization": ""}).status_code == 200


def test_an_answer_ends_for_its_own_reason(it: Worker) -> None:
    """The end of the answer is `stop`, so is a stop string, and the limit is `length`."""
    reasons = [
        it.http.post(CHAT, json=chat(**fields)).json()["choices"][0]["finish_reason"]
        for fields in ({}, {"stop": "bumble"}, {"max_tokens": 3})
    ]

    assert reasons == ["stop", "stop", "length"]


def test_several_answers_come_in_one_stream(it: Worker) -> None:
    """With n every answer has its index, its role, its text and its end; the counts come last and once."""
    seen = chunks(it, CHAT, chat(n=2, max_tokens=4, stream_options={"include_usage": True}))

    *told, last = seen
    for index in (0, 1):
        mine = [chunk["choices"][0] for chunk in told if chunk["choices"][0]["index"] == index]
        assert mine[0]["delta"]["role"] == "assistant"
        assert "".join(choice["delta"].get("content") or "" for choice in mine) == "Honey bees, bumble bees"
        assert mine[-1]["finish_reason"] == "length"
    assert all(chunk["usage"] is None for chunk in told)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 8
    assert last["usage"]["prompt_tokens"] < 8


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_slots(tmp_path: Path, stream: bool) -> None:
    """Closing the connection stops all answers of the request, streamed or not."""
    body = json.dumps(chat(n=2, stream=stream)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    with worker(tmp_path, "--slots", "2", fake={"tokens_per_s": 20}) as it:
        it.until_idle()
        with socket.create_connection(("127.0.0.1", it.http.base_url.port or 0), timeout=10) as sock:
            sock.sendall(head.encode() + body)
            eventually(lambda: it.json("/v1/slots")["slots_available"] == 0, within=5, because="the request runs")

        eventually(lambda: it.json("/v1/slots")["slots_available"] == 2, within=1, because="the slots are free")


@pytest.mark.parametrize(("key", "status"), [(KEY, 200), ("wrong", 401)])
def test_anthropics_key_opens_too(it: Worker, key: str, status: int) -> None:
    """The key may come as Anthropic's clients send it; a wrong one does not open."""
    answer = httpx.get(f"{str(it.http.base_url).rstrip('/')}/v1/slots", headers={"x-api-key": key}, trust_env=False)

    assert answer.status_code == status


@pytest.mark.parametrize(
    ("path", "body", "event"),
    [
        (CHAT, chat(), "data: {"),
        ("/v1/completions", {"prompt": "x", "max_tokens": 100}, "data: {"),
        ("/v1/messages", {"messages": HELLO, "max_tokens": 100}, "event: error"),
        ("/v1/responses", {"input": "x"}, "event: error"),
    ],
)
def test_a_stream_that_breaks_says_so(tmp_path: Path, path: str, body: dict[str, Any], event: str) -> None:
    """An engine that fails in the middle ends each stream with an error where its clients look for one."""
    with worker(tmp_path, fake={"fail_after": 3}) as it:
        it.until_idle()
        with it.http.stream("POST", path, json={**body, "stream": True}) as response:
            lines = [line for line in response.iter_lines() if line]

    last = json.loads(lines[-1].removeprefix("data: "))
    assert last["error"]["code"] == "WORKER_CRASHED"
    assert lines[-2 if event.startswith("event") else -1].startswith(event)


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses"])
def test_an_answer_that_breaks_is_an_error(tmp_path: Path, path: str) -> None:
    """An answer at once that cannot be ended is WORKER_CRASHED with its HTTP status, and never half an answer."""
    with worker(tmp_path, fake={"fail_after": 3}) as it:
        it.until_idle()
        response = it.http.post(path, json={"messages": HELLO, "input": "x", "max_tokens": 100})

    assert response.status_code == 500
    assert response.json()["error"]["code"] == "WORKER_CRASHED"


def test_a_client_that_leaves_gives_up_its_embeddings(tmp_path: Path) -> None:
    """Whoever hangs up on many embeddings does not have all of them computed."""
    body = json.dumps({"input": ["bee"] * 2000}).encode()
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with worker(tmp_path, fake={"embedding": 8, "prompt_tokens_per_s": 20}) as it:
        it.until_idle()
        with socket.create_connection(("127.0.0.1", it.http.base_url.port or 0), timeout=10) as sock:
            sock.sendall(head.encode() + body)
            eventually(lambda: it.json("/v1/slots")["slots_available"] == 3, within=5, because="the request runs")

        eventually(lambda: it.json("/v1/slots")["slots_available"] == 4, within=1, because="the slot is free")
        assert it.http.post("/v1/embeddings", json={"input": "bee"}).status_code == 200


def test_documents_are_sorted_by_the_query(tmp_path: Path) -> None:
    """A model that ranks gives each document its relevance, in the form that clients of reranking read."""
    with worker(tmp_path, "--model-ref", "hf:bees/Ranker", fake={"ranks": True}) as it:
        it.until_idle()
        documents = ["wasps sting", {"text": "honey is made by bees"}, "bees dance"]
        answer = it.http.post(
            "/v1/rerank", json={"query": "bees honey", "documents": documents, "return_documents": True, "top_n": 2}
        ).json()

    assert answer["id"].startswith("rerank-")
    assert answer["model"] == "hf:bees/Ranker"
    assert answer["results"] == [
        {"index": 1, "relevance_score": 1.0, "document": {"text": "honey is made by bees"}},
        {"index": 2, "relevance_score": 0.5, "document": {"text": "bees dance"}},
    ]
    assert answer["usage"] == {"prompt_tokens": 18, "total_tokens": 18}


def test_figures_count_tokens_and_times(tmp_path: Path) -> None:
    """A worker counts its generations by their end, their tokens, and the times to and between them."""
    with worker(tmp_path, fake={"tokens_per_s": 100}) as it:
        it.until_idle()
        for _ in range(2):
            question = [{"role": "user", "content": "bee " * 50}]
            assert it.http.post(CHAT, json=chat(messages=question, max_tokens=5)).status_code == 200

        figures = it.http.get("/metrics").text

    prompt = int(float(figures.split("\nrbee_worker_prompt_tokens_total ")[1].split()[0]))
    assert 'rbee_worker_generations_total{outcome="length"} 2.0' in figures
    assert "rbee_worker_generated_tokens_total 10.0" in figures
    assert f"rbee_worker_prompt_tokens_cached_total {prompt / 2 - 2:.1f}" in figures
    assert 'rbee_worker_time_per_output_token_seconds_bucket{le="0.005"} 0.0' in figures
    assert "rbee_worker_time_per_output_token_seconds_count 2.0" in figures
    assert 'rbee_worker_slots{free="yes"} 4.0' in figures
