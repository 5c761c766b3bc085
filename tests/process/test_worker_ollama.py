"""Ollama's interface at a worker: lines of JSON, thoughts and calls apart; with the fake engine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rbee.worker.chat import library
from tests.chat.conversations import TOOL
from tests.chat.outputs import OUTPUTS
from tests.support.waiting import eventually
from tests.support.worker import Worker, worker

pytestmark = pytest.mark.process
HELLO = [{"role": "user", "content": "How many bees are in the north hive?"}]
NAME = "hf:bees/Bees-GGUF:bee.gguf"
QWEN = "Qwen-Qwen3-0.6B"


@pytest.fixture(scope="module", name="it")
def _it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker of two slots whose template knows neither tools nor thoughts."""
    fake = {"context": 400, "length": 6}
    with worker(tmp_path_factory.mktemp("worker"), "--slots", "2", "--model-ref", NAME, fake=fake) as it:
        it.until_idle()
        yield it


def streamed(it: Worker, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the lines of a stream."""
    response = it.http.post(path, json=body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.text.endswith("}\n")
    return [json.loads(line) for line in response.text.splitlines()]


@pytest.mark.parametrize("kind", ["chat", "generate", "raw"])
def test_an_answer_is_a_stream_unless_it_is_asked_for_whole(it: Worker, kind: str) -> None:
    """A stream has a piece a line and says at its end why it ended and what it took; whole, it is one object."""
    prompt = {"messages": HELLO} if kind == "chat" else {"prompt": "Bees?", "raw": kind == "raw"}
    path, part = ("/api/chat", "message") if kind == "chat" else ("/api/generate", "response")

    *pieces, last = streamed(it, path, prompt)
    whole = it.http.post(path, json={**prompt, "stream": False}).json()

    def text(one: dict[str, Any]) -> str:
        return str(one[part]["content"] if kind == "chat" else one[part])

    assert "".join(map(text, pieces)) == text(whole) == "Honey bees, bumble bees and carpenter"
    assert [one["done"] for one in (*pieces, last)] == [False] * len(pieces) + [True]
    for end in (last, whole):
        assert (end["model"], end["done"], end["done_reason"], end["eval_count"]) == (NAME, True, "stop", 6)
        assert end["prompt_eval_count"] > 0
        assert 0 < end["prompt_eval_duration"] + end["eval_duration"] <= end["total_duration"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", end["created_at"])


@pytest.mark.engine
def test_thoughts_and_calls_have_fields_of_their_own(tmp_path: Path) -> None:
    """A thought is `thinking`, the arguments of a call are an object, whole or in a stream."""
    output = next(one for one in OUTPUTS if one.template == QWEN)
    package = library.folder()
    assert package is not None
    template = (package / "chat_templates" / f"{QWEN}.jinja").read_text(encoding="utf-8")
    length = len(re.findall(r"\s*\S+|\s+", output.text))
    with worker(tmp_path, fake={"template": template, "text": output.text, "length": length}) as it:
        it.until_idle()
        eventually(lambda: it.json("/v1/models")["data"][0]["capabilities"], within=10, because="it is opened")
        body = {"messages": HELLO, "tools": [TOOL]}
        whole = it.http.post("/api/chat", json={**body, "stream": False}).json()["message"]
        pieces = [one["message"] for one in streamed(it, "/api/chat", body)]
        shown = it.http.post("/api/show", json={}).json()

    assert shown["capabilities"] == ["completion", "tools", "thinking"]
    assert whole.get("thinking", "").strip() == output.thought.strip()
    for message in (whole, pieces):
        parts = message if isinstance(message, list) else [message]
        calls = [call["function"] for part in parts for call in part.get("tool_calls", ())]
        assert "".join(part.get("thinking", "") for part in parts) == whole.get("thinking", "")
        assert "".join(part["content"] for part in parts) == whole["content"]
        assert [(call["name"], call["arguments"]) for call in calls] == [
            (call["function"]["name"], call["function"]["arguments"]) for call in whole.get("tool_calls", ())
        ]
        assert all(isinstance(call["arguments"], dict) for call in calls)


def test_what_is_not_heeded_is_named(it: Worker) -> None:
    """Options that a request cannot set, and how long a model is to stay, are named in a header; the rest is done."""
    options = {"num_ctx": 8192, "num_gpu": 99, "num_predict": 2, "temperature": 0, "stop": "wasp"}
    chat = it.http.post("/api/chat", json={"messages": HELLO, "options": options, "keep_alive": "5m"})
    prompt = it.http.post("/api/generate", json={"prompt": "x", "context": [1, 2], "options": {"num_predict": 1}})

    assert chat.headers["x-rbee-ignored"] == "keep_alive, options.num_ctx, options.num_gpu"
    assert json.loads(chat.text.splitlines()[-1])["done_reason"] == "length"
    assert prompt.headers["x-rbee-ignored"] == "context"


def test_a_request_without_a_prompt_loads_the_model(it: Worker) -> None:
    """Chats without messages and prompts without text are answered at once, with the reason `load`."""
    for path, body in (("/api/chat", {"messages": []}), ("/api/generate", {"keep_alive": -1})):
        (line,) = streamed(it, path, body)
        assert (line["done"], line["done_reason"]) == (True, "load")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/api/chat", {"messages": [{**HELLO[0], "images": ["aGVsbG8="]}]}, "messages.0.images"),
        ("/api/chat", {"messages": [{"content": "x"}]}, "messages.0.role"),
        ("/api/chat", {"messages": HELLO, "think": "very"}, "think"),
        ("/api/chat", {"messages": HELLO, "options": {"temperature": 9}}, "options.temperature"),
        ("/api/chat", {"messages": HELLO, "options": {"num_predict": -3}}, "options.num_predict"),
        ("/api/chat", {"messages": HELLO, "format": {"type": "bee"}}, None),
        ("/api/chat", {"messages": HELLO, "tools": [TOOL, TOOL]}, "tools.1"),
        ("/api/chat", {"messages": [{"role": "user", "content": "bee " * 500}]}, "messages"),
        ("/api/generate", {"prompt": "x", "images": ["aGVsbG8="]}, "images"),
        ("/api/generate", {"prompt": "x", "suffix": "y"}, "suffix"),
        ("/api/generate", {"prompt": "x", "template": "{{ .Prompt }}"}, "template"),
        ("/api/generate", {"prompt": "x", "raw": True, "system": "y"}, "system"),
        ("/api/embed", {"input": "x"}, "model"),
        ("/api/embed", {}, "input"),
        ("/api/embeddings", {"prompt": ""}, "prompt"),
    ],
)
def test_bad_requests_are_refused_in_ollamas_form(
    it: Worker, path: str, body: dict[str, Any], field: str | None
) -> None:
    """The error is a text that names the field, with the right status; what other routes tell of it lies beside it."""
    response = it.http.post(path, json=body)

    assert response.status_code == 400, response.text
    error = response.json()
    assert isinstance(error["error"], str)
    if field is not None:
        assert error["param"] == field
    assert it.json("/v1/slots")["slots_available"] == 2


def test_another_model_is_not_there(it: Worker) -> None:
    """The model may be named with a tag; any other is 404."""
    assert streamed(it, "/api/chat", {"model": f"{NAME}:latest", "messages": HELLO})[-1]["model"] == f"{NAME}:latest"
    missing = it.http.post("/api/chat", json={"model": "llama3", "messages": HELLO})
    assert missing.status_code == 404
    assert "llama3" in missing.json()["error"]


def test_the_one_model_is_listed(it: Worker) -> None:
    """Lists and descriptions say the name, the context that a request may have, and what the model can do."""
    (tagged,) = it.json("/api/tags")["models"]
    (running,) = it.json("/api/ps")["models"]
    shown = it.http.post("/api/show", json={"model": NAME}).json()

    assert tagged["name"] == tagged["model"] == running["model"] == NAME
    assert running["context_length"] == shown["model_info"]["fake.context_length"] == 400
    assert shown["capabilities"] == ["completion"]
    assert it.json("/api/version")["version"] >= "0.33"


def test_texts_are_embedded(tmp_path: Path) -> None:
    """One text or several, whole or cut to fewer dimensions; the old route takes one."""
    with worker(tmp_path, fake={"embedding": 8}) as it:
        it.until_idle()
        several = it.http.post("/api/embed", json={"input": ["a bee", "a wasp"], "truncate": True})
        short = it.http.post("/api/embed", json={"input": "a bee", "dimensions": 4}).json()
        old = it.http.post("/api/embeddings", json={"prompt": "a bee"}).json()
        capabilities = it.http.post("/api/show", json={}).json()["capabilities"]

    vectors = several.json()["embeddings"]
    assert [len(vector) for vector in vectors] == [8, 8]
    assert several.json()["prompt_eval_count"] == 4
    assert several.headers["x-rbee-ignored"] == "truncate"
    assert len(short["embeddings"][0]) == 4
    assert old["embedding"] == vectors[0]
    assert capabilities == ["embedding"]


def test_a_silent_stream_is_kept_alive_with_space(tmp_path: Path) -> None:
    """While a prompt is read there are spaces before the next line, which no reader of JSON minds, and no comments."""
    fake = {"prompt_tokens_per_s": 30, "length": 2, "context": 2000}
    with worker(tmp_path, "--prompt-batch", "16", fake=fake) as it:
        it.until_idle()
        text = it.http.post("/api/chat", json={"messages": [{"role": "user", "content": "bee " * 90}]}).text

    assert text.startswith(" ")
    assert len([json.loads(line) for line in text.splitlines()]) == 3
