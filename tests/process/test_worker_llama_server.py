"""llama-server's own routes at a worker: tokens, prompts, properties, slots; with the fake engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.waiting import eventually
from tests.support.worker import Worker, worker

pytestmark = pytest.mark.process
HELLO = [{"role": "user", "content": "Bees?"}]


@pytest.fixture(scope="module", name="it")
def _it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with worker(tmp_path_factory.mktemp("worker"), "--slots", "2", fake={"length": 3, "context": 400}) as it:
        it.until_idle()
        yield it


def test_a_text_becomes_tokens_and_the_text_again(it: Worker) -> None:
    """Tokens come with their pieces where that is asked for, and what they are written as is the text."""
    tokens = it.http.post("/tokenize", json={"content": "a bee flies"}).json()["tokens"]
    pieces = it.http.post("/tokenize", json={"content": "a bee flies", "with_pieces": True}).json()["tokens"]
    text = it.http.post("/detokenize", json={"tokens": tokens}).json()["content"]

    assert [piece["id"] for piece in pieces] == tokens
    assert "".join(piece["piece"] for piece in pieces) == text == "a bee flies"


def test_bytes_that_are_no_text_are_numbers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A piece that is a part of a character only is listed as its bytes."""
    with worker(tmp_path_factory.mktemp("rubbish"), fake={"rubbish": True}) as it:
        it.until_idle()
        (piece,) = it.http.post("/tokenize", json={"content": "bee", "with_pieces": True}).json()["tokens"]

    assert piece["piece"] == [0xFF, 0xFE, 0x80]


def test_a_token_that_no_model_has_is_refused(it: Worker) -> None:
    """What is outside the vocabulary is INVALID_REQUEST."""
    error = it.http.post("/detokenize", json={"tokens": [2**31 - 1]})

    assert (error.status_code, error.json()["error"]["param"]) == (400, "tokens")


def test_a_chat_is_rendered_and_not_answered(it: Worker) -> None:
    """The prompt is what the model would read."""
    prompt = it.http.post("/apply-template", json={"messages": HELLO}).json()["prompt"]

    assert prompt == "user: Bees?\nassistant:"


def test_properties_tell_the_context_and_the_template(it: Worker) -> None:
    """Clients read how many tokens a slot holds, how many slots there are, and what the template can do."""
    props = it.json("/props")

    assert props["default_generation_settings"]["n_ctx"] == 400
    assert props["total_slots"] == 2
    assert "assistant:" in props["chat_template"]
    assert set(props["chat_template_caps"].values()) <= {True, False}


def test_slots_tell_what_they_hold(it: Worker) -> None:
    """Each slot says whether it is in use and how much of a conversation it has read."""
    it.http.post("/v1/chat/completions", json={"messages": HELLO})

    slots = it.http.get("/slots").json()
    assert [slot["id"] for slot in slots] == [0, 1]
    assert all(slot["n_ctx"] == 400 and not slot["is_processing"] for slot in slots)
    assert max(slot["n_past"] for slot in slots) > 0


def test_the_model_is_listed_with_what_it_can_do(it: Worker) -> None:
    """The list says the context, what the model can do and that it is loaded, at each of its addresses."""
    eventually(lambda: it.json("/v1/models")["data"][0]["capabilities"], within=10, because="its template is opened")

    (card,) = it.json("/v1/models")["data"]
    assert it.json("/models") == it.json("/v1/models")
    assert (card["context_length"], card["meta"]["n_ctx"], card["status"]) == (400, 400, {"value": "loaded"})
    assert card["capabilities"] == ["completion"]
    assert it.json(f"/v1/models/{card['id']}") == card


def test_the_owner_hears_what_the_model_can_do(it: Worker) -> None:
    """Its hive is told over the lifeline, once the template was opened."""
    assert it.hear_until("capabilities", ["completion"])["state"] in ("idle", "busy")
