"""Real models that rank documents: tiny and knowing nothing, but computed by llama.cpp like any other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gguf_embedder import CONTEXT, write_embedder, write_ranker
from tests.support.worker import Worker, worker

pytestmark = pytest.mark.engine

LETTERS = ["a b c", "x y z", "q q q q", "m n"]


@pytest.fixture(scope="module", name="it")
def _it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("ranker")
    with worker(folder, model=write_ranker(folder / "letters.gguf")) as it:
        it.until_idle()
        yield it


def rerank(it: Worker, query: str, documents: list[Any], **fields: Any) -> dict[str, Any]:
    answer = it.http.post("/v1/rerank", json={"model": "letters", "query": query, "documents": documents, **fields})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def relevances(answer: dict[str, Any]) -> dict[int, float]:
    return {result["index"]: result["relevance_score"] for result in answer["results"]}


def test_documents_come_the_best_first(it: Worker) -> None:
    """Every document has its place in the order and a relevance from 0 to 1, which differ."""
    answer = rerank(it, "a b", LETTERS)

    told = [result["relevance_score"] for result in answer["results"]]
    assert told == sorted(told, reverse=True)
    assert sorted(relevances(answer)) == [0, 1, 2, 3]
    assert all(0.0 < relevance < 1.0 for relevance in told)
    assert len(set(told)) == 4
    assert all("document" not in result for result in answer["results"])


def test_a_relevance_is_of_query_and_document_alone(it: Worker) -> None:
    """What a document is worth does not depend on those beside it or their order, but on the query."""
    first, turned = relevances(rerank(it, "a b", LETTERS)), relevances(rerank(it, "a b", LETTERS[::-1]))
    alone, other = relevances(rerank(it, "a b", LETTERS[:1])), relevances(rerank(it, "z", LETTERS[:1]))

    assert first == {3 - index: relevance for index, relevance in turned.items()}
    assert alone[0] == first[0]
    assert other[0] != first[0]


def test_the_count_is_of_the_tokens_of_all_pairs(it: Worker) -> None:
    """The usage counts query and document of each pair, with the marks before, between and after."""
    assert rerank(it, "a b", ["c", "d e f"])["usage"]["prompt_tokens"] == (3 + 2 + 1) + (3 + 2 + 3)


def test_the_best_are_told_with_their_texts_where_that_is_wished(it: Worker) -> None:
    """`top_n` leaves out all but the best, `return_documents` tells the texts, however they were given."""
    whole = rerank(it, "a b", LETTERS)
    best = rerank(it, "a b", [{"text": text} for text in LETTERS], top_n=2, return_documents=True)

    assert [result["index"] for result in best["results"]] == [result["index"] for result in whole["results"][:2]]
    assert [result["document"]["text"] for result in best["results"]] == [
        LETTERS[result["index"]] for result in best["results"]
    ]
    assert len(rerank(it, "a b", LETTERS, top_n=100)["results"]) == 4


def test_a_document_that_does_not_fit_is_named(it: Worker) -> None:
    """A pair longer than the model's context is refused before any is read, and the slot is free again."""
    answer = it.http.post("/v1/rerank", json={"query": "a", "documents": ["b", "c " * CONTEXT]})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "documents.1"
    assert it.json("/v1/slots")["slots_available"] == 4


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
        ("/v1/completions", {"prompt": "a"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 1}),
        ("/v1/responses", {"input": "a"}),
        ("/v1/embeddings", {"input": "a"}),
    ],
)
def test_a_model_that_ranks_does_nothing_else(it: Worker, path: str, body: dict[str, Any]) -> None:
    """A model that was made to rank writes no text and embeds none: it is refused, and says what it is made for."""
    answer = it.http.post(path, json=body)

    assert answer.status_code == 400
    assert "rank" in answer.json()["error"]["message"]


def test_a_model_that_embeds_does_not_rank(tmp_path: Path) -> None:
    """A model that was made for embeddings is refused for reranking, with words."""
    with worker(tmp_path, model=write_embedder(tmp_path / "letters.gguf")) as it:
        it.until_idle()
        answer = it.http.post("/v1/rerank", json={"query": "a", "documents": ["b"]})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "model"
    assert "is an embedding model" in answer.json()["error"]["message"]


def test_a_model_may_say_how_it_reads_a_pair(tmp_path: Path) -> None:
    """A template of the model's file puts query and document together; of several labels the first is the relevance."""
    model = write_ranker(tmp_path / "letters.gguf", labels=["yes", "no"], template="x {query} y {document} z")
    with worker(tmp_path, model=model) as it:
        it.until_idle()
        answer = rerank(it, "a b", ["c", "d"])

    assert answer["usage"]["prompt_tokens"] == 2 * (3 + 2 + 1)
    assert all(0.0 < result["relevance_score"] < 1.0 for result in answer["results"])
