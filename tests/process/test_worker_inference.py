"""Inference over a worker's HTTP: streams, slots, cancelling, refusals."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.waiting import eventually, slowness
from tests.support.worker import Worker, events, text_of, worker

pytestmark = pytest.mark.process

# How much longer an answer of the worker of all tests takes than a second for a hundred tokens.
PACE = slowness()


@pytest.fixture(scope="module", name="it")
def _it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker of two slots for the tests that leave it as they found it."""
    with worker(
        tmp_path_factory.mktemp("worker"), "--slots", "2", fake={"tokens_per_s": 100 / PACE, "context": 200}
    ) as it:
        it.until_idle()
        yield it


@pytest.mark.B34
def test_a_stream_has_tokens_and_an_end(it: Worker) -> None:
    """Tokens count from 0; the end tells tokens, time, reason and seed; the worker is idle again."""
    seen = it.infer(max_tokens=5, seed=42)

    assert [event["index"] for event in seen[:-1]] == [0, 1, 2, 3, 4]
    done = seen[-1]
    assert done["done"] is True
    assert done["total_tokens"] == 5
    assert done["finish_reason"] == "length"
    assert done["duration_ms"] >= 40
    assert done["prompt_tokens"] > 0
    assert done["seed"] == 42
    assert it.json("/v1/ready")["state"] == "idle"


def test_a_stop_string_ends_the_stream(it: Worker) -> None:
    """Neither the stop string nor what follows is sent."""
    seen = it.infer(max_tokens=50, stop=["bumble bees"])

    assert text_of(seen) == "Honey bees, "
    assert seen[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": "x", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "x", "temperature": 9}, "temperature"),
        ({"prompt": "x", "top_p": 2}, "top_p"),
        ({"prompt": "x", "stop": [""]}, "stop"),
        ({"prompt": "x", "sead": 1}, "sead"),
        ({"prompt": "  "}, "empty"),
        ({}, "prompt"),
        ({"prompt": "x", "messages": [{"role": "user", "content": "y"}]}, "prompt"),
        ({"messages": [{"role": "king", "content": "y"}]}, "role"),
        ({"messages": [{"role": "user", "content": "y"}], "raw": True}, "raw"),
        ({"prompt": "x", "seed": -1}, "seed"),
    ],
)
def test_bad_requests_are_named(it: Worker, fields: dict[str, Any], field: str) -> None:
    """A wrong request is INVALID_REQUEST before any work, and says what is wrong."""
    response = it.http.post("/v1/inference", json=fields)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "INVALID_REQUEST"
    assert field in response.text
    assert it.json("/v1/slots")["slots_available"] == 2


def test_a_prompt_of_ten_megabytes_is_refused(it: Worker) -> None:
    """A body beyond the limit is PAYLOAD_TOO_LARGE."""
    response = it.http.post("/v1/inference", json={"prompt": "x" * 10_000_000})

    assert response.status_code == 413
    assert response.json()["error"]["code"] == "PAYLOAD_TOO_LARGE"


def test_the_context_is_counted_in_the_error(it: Worker) -> None:
    """A prompt that is too long is told with its tokens and the tokens that fit."""
    details = it.http.post("/v1/inference", json={"prompt": "bee " * 500}).json()["error"]["details"]

    assert details["prompt_tokens"] >= 500
    assert details["context_tokens"] == 200


def test_more_messages_than_tokens_fit_are_refused_unrendered(it: Worker) -> None:
    """Four thousand messages are a conversation that is too long, however long a template would take for them."""
    messages = [{"role": ("user", "assistant")[number % 2], "content": "Bees?"} for number in range(3_999)]
    response = it.http.post("/v1/chat/completions", json={"model": "fake", "messages": messages})

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded", response.text
    assert "at least 3999 tokens" in response.json()["error"]["message"]


def test_more_tokens_than_fit_are_cut(it: Worker) -> None:
    """An answer ends with `length` where the context does."""
    done = it.infer(prompt="bee " * 150, max_tokens=1000, raw=True)[-1]

    assert done["finish_reason"] == "length"
    assert done["total_tokens"] == 200 - done["prompt_tokens"]


@pytest.mark.B35
@pytest.mark.B41
def test_no_free_slot_is_refused_at_once(it: Worker) -> None:
    """With all slots busy a request is 503 ALL_SLOTS_BUSY with the counts and Retry-After, without waiting."""
    with slow_stream(it), slow_stream(it):
        began = time.monotonic()
        response = it.http.post("/v1/inference", json={"prompt": "Bees?"})

        assert time.monotonic() - began < 1 * PACE
        assert it.json("/v1/ready")["state"] == "busy"
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "ALL_SLOTS_BUSY"
    assert response.json()["error"]["details"] == {"slots_total": 2, "slots_busy": 2}
    assert response.headers["Retry-After"]
    free(it)


class slow_stream:  # noqa: N801 (used like a function)
    """A request that runs as long as the context."""

    def __init__(self, it: Worker, request_id: str | None = None) -> None:
        fields: dict[str, Any] = {"prompt": "Bees?", "max_tokens": 190}
        if request_id:
            fields["request_id"] = request_id
        self._context = it.http.stream("POST", "/v1/inference", json=fields)

    def __enter__(self) -> Iterator[dict[str, Any]]:
        self._stream = events(self._context.__enter__())  # held: httpx closes a stream that nobody reads
        next(self._stream)
        return self._stream

    def __exit__(self, *_: object) -> None:
        self._context.__exit__(None, None, None)


def free(it: Worker) -> None:
    eventually(lambda: it.json("/v1/slots")["slots_available"] == 2, within=1, because="the slots are free again")


@pytest.mark.B40
def test_delete_stops_a_stream_and_may_be_repeated(it: Worker) -> None:
    """DELETE ends the stream with `cancelled` at once and frees the slot; again, or for nobody, it is 204 too."""
    with slow_stream(it, "to-stop") as stream:
        answers = [it.http.delete("/v1/inference/to-stop").status_code for _ in range(2)]
        last = list(stream)[-1]

    assert answers == [204, 204]
    assert it.http.delete("/v1/inference/never-was").status_code == 204
    assert last["finish_reason"] == "cancelled"
    assert last["total_tokens"] < 50
    free(it)


def test_a_client_that_leaves_frees_its_slot(it: Worker) -> None:
    """A closed connection cancels the generation within a step."""
    with slow_stream(it):
        assert it.json("/v1/slots")["slots_available"] == 1

    free(it)


def test_the_same_id_cannot_run_twice(it: Worker) -> None:
    """A second request under the id of a running one is refused."""
    with slow_stream(it, "twin"):
        response = it.http.post("/v1/inference", json={"prompt": "Bees?", "request_id": "twin"})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "request_id"
    free(it)


def test_slots_tell_who_uses_them(it: Worker) -> None:
    """The list of slots shows requests and counts of tokens."""
    with slow_stream(it, "shown"):
        slots = it.json("/v1/slots")["slots"]

    assert [slot["index"] for slot in slots] == [0, 1]
    assert "shown" in {slot["request_id"] for slot in slots}
    free(it)


@pytest.mark.parametrize("path", ["/v1/ready", "/v1/slots", "/v1/loading/progress"])
@pytest.mark.B44
def test_all_but_health_want_the_key(it: Worker, path: str) -> None:
    """Without the key every route but health is 401."""
    without = httpx.get(f"{it.http.base_url}{path}", trust_env=False)
    wrong = httpx.get(f"{it.http.base_url}{path}", headers={"Authorization": "Bearer no"}, trust_env=False)

    assert (without.status_code, without.json()["error"]["code"]) == (401, "MISSING_API_KEY")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "INVALID_API_KEY")
    assert httpx.get(f"{it.http.base_url}/v1/health", trust_env=False).status_code == 200


@pytest.mark.B53
def test_unknown_routes_have_the_one_error_body(it: Worker) -> None:
    """404 and 405 look like every other error."""
    assert it.http.get("/v1/nothing").json()["error"]["code"] == "ROUTE_NOT_FOUND"
    assert it.http.get("/v1/inference").json()["error"]["code"] == "METHOD_NOT_ALLOWED"


def test_the_routes_describe_themselves(it: Worker) -> None:
    """The OpenAPI document names every route, with its bodies and the one error body."""
    document = it.json("/openapi.json")

    assert document["paths"]["/v1/inference"]["post"]["requestBody"]["required"] is True
    assert document["paths"]["/v1/inference/{request_id}"]["delete"]["parameters"][0]["name"] == "request_id"
    assert {"InferenceRequest", "WorkerHealth", "ErrorBody", "ErrorDetail"} <= set(document["components"]["schemas"])
    assert len(document["paths"]) == 32


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 5000, b"\xff", b'"text"', b'{"prompt": 7}'])
def test_a_body_that_is_no_request(it: Worker, body: bytes) -> None:
    """What is no JSON, or not the JSON of a request, is INVALID_REQUEST."""
    response = it.http.post("/v1/inference", content=body)

    assert response.status_code == 400
    assert response.json()["error"]["code"] == "INVALID_REQUEST"


def test_health_tells_what_the_worker_is(it: Worker) -> None:
    """Health has state, slots, model, device, memory and idle time."""
    health = it.json("/v1/health")

    assert health["status"] == "alive"
    assert health["state"] == "idle"
    assert health["context_length"] == 200
    assert health["memory_bytes"] > 1_000_000
    assert health["idle_s"] >= 0
    assert health["stalled_s"] == 0


def test_parallel_streams_are_whole(it: Worker) -> None:
    """Two streams at once each get their own tokens, in order, and run side by side."""
    results: list[list[dict[str, Any]]] = []
    began = time.monotonic()
    threads = [threading.Thread(target=lambda: results.append(it.infer(max_tokens=50))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began

    assert len(results) == 2
    assert text_of(results[0]) == text_of(results[1])
    for result in results:
        assert [event["index"] for event in result[:-1]] == list(range(50))
    assert seconds < 0.9 * PACE, "one after the other would take 1 s at least"


def test_rubbish_does_not_break_the_stream(tmp_path: Path) -> None:
    """Bytes that are no text arrive as replacement characters, and the stream ends as usual."""
    with worker(tmp_path, fake={"rubbish": True}) as it:
        it.until_idle()
        seen = it.infer(max_tokens=4)

        assert set(text_of(seen)) == {"\ufffd"}
        assert seen[-1]["total_tokens"] == 4


def test_a_long_prompt_can_be_cancelled(tmp_path: Path) -> None:
    """Cancelling breaks off a prompt that is still being evaluated; other streams go on untouched."""
    options = {"prompt_tokens_per_s": 50, "tokens_per_s": 50, "context": 4000}
    with worker(tmp_path, "--prompt-batch", "1000", fake=options) as it:
        it.until_idle()
        seen: list[list[dict[str, Any]]] = []
        long = threading.Thread(target=lambda: seen.append(it.infer(prompt="bee " * 900, raw=True, request_id="long")))
        long.start()
        eventually(lambda: it.json("/v1/slots")["slots_available"] == 3, within=2, because="the prompt has a slot")
        began = time.monotonic()
        it.http.delete("/v1/inference/long")
        long.join()

        assert time.monotonic() - began < 2 * slowness(), "the step alone would take 18 s"
        assert seen[0][-1]["finish_reason"] == "cancelled"
        assert it.infer(max_tokens=3)[-1]["total_tokens"] == 3


def test_a_model_without_template_says_so(tmp_path: Path) -> None:
    """A model without a chat template chats all the same, and READY warns of the form that it is spoken to in."""
    with worker(tmp_path, fake={"template": None}) as it:
        it.until_idle()

        assert it.infer(prompt="Bees?", max_tokens=2)[-1]["total_tokens"] == 2
        assert it.infer(raw=True, max_tokens=2)[-1]["total_tokens"] == 2
        assert "no chat template" in it.json("/v1/ready")["warning"]


def test_the_fake_engine_answers_by_what_it_is_asked(tmp_path: Path) -> None:
    """A prompt with a text that has a reply gets that, whole and once; the first that fits; any other the answer."""
    fake = {"text": "Honey.", "length": 1, "replies": {"wax": "Of wax.", "bees": "Of the bees."}}
    with worker(tmp_path, fake=fake) as it:
        it.until_idle()
        told = [text_of(it.infer(prompt=prompt)) for prompt in ("What of bees?", "bees and wax", "What?")]

    assert told == ["Of the bees.", "Of wax.", "Honey."]
