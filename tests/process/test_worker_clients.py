"""What clients of other servers send, taken as they mean it: batches, limits, histories; with the fake engine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.waiting import eventually, slowness
from tests.support.worker import Worker, worker

pytestmark = pytest.mark.process

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Bees?"}]


@pytest.fixture(scope="module", name="it")
def _it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with worker(tmp_path_factory.mktemp("worker"), fake={"length": 10}) as it:
        it.until_idle()
        yield it


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": HELLO, **fields}


def events(response: httpx.Response) -> list[str]:
    """Give the data of a stream that was read whole."""
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [line for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "prompts"),
    [
        (CHAT, {"messages": HELLO}),
        ("/v1/completions", {"prompt": "Bees?"}),
        ("/v1/completions", {"prompt": ["a", "b"]}),
    ],
    ids=["chat", "completion", "completions"],
)
def test_more_answers_than_slots_wait_in_turn(tmp_path: Path, path: str, prompts: dict[str, Any], stream: bool) -> None:
    """`n` above the slots is answered whole, each prompt is counted once, and a slot is left to others meanwhile."""
    with worker(tmp_path, "--slots", "2", fake={"tokens_per_s": 40 / slowness(), "length": 8}) as it:
        it.until_idle()
        body = {**prompts, "n": 6, "max_tokens": 8, "stream": stream, "stream_options": {"include_usage": True}}
        batch: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: batch.append(it.http.post(path, json=body)))
        asking.start()
        eventually(lambda: it.json("/v1/slots")["slots_available"] == 1, within=5, because="one slot is left")

        assert it.http.post(CHAT, json=chat(max_tokens=2)).status_code == 200
        assert asking.is_alive()
        asking.join(60)

    (answer,) = batch
    assert answer.status_code == 200, answer.text
    texts: dict[int, str] = {}
    bodies = [answer.json()] if not stream else [json.loads(line) for line in events(answer)]
    for choice in (choice for one in bodies for choice in one["choices"]):
        text = choice.get("text") or (choice.get("message") or choice.get("delta") or {}).get("content") or ""
        texts[choice["index"]] = texts.get(choice["index"], "") + text
    many = prompts["prompt"] if isinstance(prompts.get("prompt"), list) else ["x"]
    assert sorted(texts) == list(range(6 * len(many)))
    assert len(set(texts.values())) == 1
    assert bodies[-1]["usage"]["completion_tokens"] == 6 * len(many) * 8
    assert bodies[-1]["usage"]["prompt_tokens"] < 6


@pytest.mark.parametrize("stream", [False, True])
def test_more_prompts_than_slots_wait_in_turn(tmp_path: Path, stream: bool) -> None:
    """A batch of prompts is answered whole on few slots, in order, and leaves a slot to others meanwhile."""
    with worker(tmp_path, "--slots", "2", fake={"tokens_per_s": 40, "length": 8}) as it:
        it.until_idle()
        prompts = [f"bees number {number}" for number in range(20)]
        body = {"prompt": prompts, "max_tokens": 8, "n": 1, "echo": True, "stream": stream}
        batch: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: batch.append(it.http.post("/v1/completions", json=body)))
        asking.start()
        eventually(lambda: it.json("/v1/slots")["slots_available"] == 1, within=5, because="one slot is left")

        assert it.http.post(CHAT, json=chat(max_tokens=2)).status_code == 200
        assert asking.is_alive()
        asking.join(60)

        (answer,) = batch
        assert answer.status_code == 200
        texts = dict.fromkeys(range(20), "")
        bodies = [answer.json()] if not stream else [json.loads(line) for line in events(answer)]
        for choice in (choice for one in bodies for choice in one["choices"]):
            texts[choice["index"]] += choice["text"]
        assert all(texts[number].startswith(prompt) for number, prompt in enumerate(prompts))
        assert all(len(texts[number]) > len(prompt) for number, prompt in enumerate(prompts))
        eventually(lambda: it.json("/v1/slots")["slots_available"] == 2, within=5, because="all slots are free")


def test_a_batch_that_nobody_waits_for_is_given_up(tmp_path: Path) -> None:
    """A client that leaves takes along the prompts that wait, and a deadline ends them too."""
    with worker(tmp_path, "--slots", "1", fake={"tokens_per_s": 20}) as it:
        it.until_idle()
        body = {"prompt": ["bees"] * 50, "max_tokens": 40, "stream": True}
        with it.http.stream("POST", "/v1/completions", json=body) as response:
            assert any("text" in line for line in response.iter_lines())
        eventually(lambda: it.json("/v1/slots")["slots_available"] == 1, within=5, because="the slot is free")

        late = it.http.post("/v1/completions", json={**body, "stream": False}, headers={"X-Rbee-Deadline": "1"})

        assert late.json()["error"]["code"] == "REQUEST_TIMEOUT"
        eventually(lambda: it.json("/v1/slots")["slots_available"] == 1, within=5, because="the slot is free again")


@pytest.mark.parametrize(
    ("path", "field", "prompt"),
    [
        (CHAT, "max_tokens", {"messages": HELLO}),
        (CHAT, "max_completion_tokens", {"messages": HELLO}),
        ("/v1/completions", "max_tokens", {"prompt": "Bees?"}),
        ("/v1/messages", "max_tokens", {"messages": HELLO}),
        ("/v1/responses", "max_output_tokens", {"input": "Bees?"}),
    ],
)
def test_limits_of_nothing_and_of_no_limit(tmp_path: Path, path: str, field: str, prompt: dict[str, Any]) -> None:
    """As elsewhere, 0 reads the prompt and writes nothing, and -1 goes on to the model's own end."""
    with worker(tmp_path, fake={"length": 30}) as it:
        it.until_idle()
        nothing = it.http.post(path, json={**prompt, field: 0}).json()["usage"]
        no_limit = it.http.post(path, json={**prompt, field: -1, "top_k": -1, "seed": -1}).json()["usage"]

    assert (nothing.get("completion_tokens"), nothing.get("output_tokens")) in ((0, None), (None, 0))
    assert 30 in (no_limit.get("completion_tokens"), no_limit.get("output_tokens"))


def test_an_assistant_that_said_nothing_is_taken_as_empty(it: Worker) -> None:
    """Clients send such messages back after an answer that was cut off; a user's without content is still refused."""
    history = [*HELLO, {"role": "assistant", "content": None}, *HELLO]

    assert it.http.post(CHAT, json=chat(messages=history, max_tokens=1)).status_code == 200
    refused = it.http.post(CHAT, json=chat(messages=[{"role": "user", "content": None}]))
    assert refused.json()["error"]["param"] == "messages.0"


@pytest.mark.parametrize("path", [CHAT, "/v1/responses"])
def test_a_conversation_goes_on_after_a_call_that_was_cut_off(it: Worker, path: str) -> None:
    """What a client was sent of a call that `max_tokens` ended is taken back from it."""
    function = {"name": "weather", "arguments": '{"city": "Par'}
    call = {"type": "function_call", "call_id": "c1", **function}
    if path == CHAT:
        turn = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        }
        body = chat(messages=[*HELLO, turn, {"role": "tool", "tool_call_id": "c1", "content": "cut off"}, *HELLO])
    else:
        body = {"input": [*HELLO, call, {"type": "function_call_output", "call_id": "c1", "output": "cut off"}]}

    assert it.http.post(path, json=body).status_code == 200


@pytest.mark.parametrize(
    ("path", "field"), [(CHAT, "messages"), ("/v1/responses", "input"), ("/v1/messages", "messages")]
)
def test_what_a_template_rejects_is_named_as_the_request_has_it(tmp_path: Path, path: str, field: str) -> None:
    """A conversation that the chat template refuses is an error about the field that holds it."""
    with worker(tmp_path, fake={"template": "{{ raise_exception('no bees here') }}"}) as it:
        it.until_idle()
        answer = it.http.post(path, json={field: HELLO, "max_tokens": 5, "max_output_tokens": 5})

    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, field)
    assert "no bees here" in error["message"]
