"""A real model that embeds texts: tiny and knowing nothing, but computed by llama.cpp like any other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.support.gguf_embedder import CONTEXT, SIZE, write_embedder
from tests.support.worker import KEY, Worker, worker

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", name="it")
def _it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("embedder")
    with worker(folder, model=write_embedder(folder / "letters.gguf")) as it:
        it.until_idle()
        yield it


@pytest.fixture(scope="module", name="client")
def _client(it: Worker) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{str(it.http.base_url).rstrip('/')}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def embed(client: openai.OpenAI, texts: Any, **fields: Any) -> list[list[float]]:
    return [one.embedding for one in client.embeddings.create(model="letters", input=texts, **fields).data]


def test_each_text_has_its_embedding(client: openai.OpenAI) -> None:
    """Embeddings come in order, have length 1, and do not depend on what else is embedded."""
    together = embed(client, ["a b c", "x y", "a b c"])

    assert [len(vector) for vector in together] == [SIZE] * 3
    for vector in together:
        assert math.isclose(sum(value * value for value in vector), 1.0, rel_tol=1e-5)
    assert together[0] == together[2] == embed(client, "a b c")[0]
    assert together[0] != together[1]


def test_floats_and_bytes_are_the_same(client: openai.OpenAI) -> None:
    """What the client decodes from base64, its default, is what comes as numbers."""
    floats = embed(client, "a b", encoding_format="float")[0]

    assert embed(client, "a b")[0] == pytest.approx(floats, abs=1e-6)


def test_the_count_is_of_the_tokens(client: openai.OpenAI) -> None:
    """The usage counts the tokens of all texts, with those that the model adds."""
    assert client.embeddings.create(model="letters", input=["a b", "c"]).usage.prompt_tokens == (2 + 2) + (1 + 2)


def test_fewer_dimensions_have_length_one_again(client: openai.OpenAI) -> None:
    """A shortened embedding points the same way; more dimensions than there are is refused."""
    whole, short = embed(client, "a b")[0], embed(client, "a b", dimensions=4)[0]

    assert math.isclose(sum(value * value for value in short), 1.0, rel_tol=1e-5)
    assert [value / whole[0] for value in whole[:4]] == pytest.approx([value / short[0] for value in short], rel=1e-4)
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        embed(client, "a b", dimensions=SIZE + 1)


@pytest.mark.parametrize("texts", ["", ["a", ""], "a " * (CONTEXT + 1), [99999]])
def test_what_cannot_be_embedded_is_refused(client: openai.OpenAI, it: Worker, texts: Any) -> None:
    """An empty text, one that is too long and tokens that do not exist are refused, and the slot is free again."""
    with pytest.raises(openai.BadRequestError) as caught:
        embed(client, texts)

    assert (caught.value.param or "").startswith("input")
    assert it.json("/v1/slots")["slots_available"] == 4


def test_a_text_may_fill_the_context(client: openai.OpenAI) -> None:
    """A text of exactly as many tokens as the context holds is embedded; one more is too long, in known words."""
    special = client.embeddings.create(model="letters", input="a").usage.prompt_tokens - 1
    fitting = " ".join(["a"] * (CONTEXT - special))

    assert len(embed(client, fitting)) == 1
    with pytest.raises(openai.BadRequestError, match=f"maximum context length is {CONTEXT} tokens") as caught:
        embed(client, fitting + " a")

    assert caught.value.code == "context_length_exceeded"


def test_a_model_that_embeds_writes_nothing(client: openai.OpenAI) -> None:
    """A chat with a model that was made for embeddings is refused with words."""
    with pytest.raises(openai.BadRequestError, match="generates no text"):
        client.chat.completions.create(model="letters", messages=[{"role": "user", "content": "a"}])
