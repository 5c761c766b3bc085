"""Steps of a client that has documents reranked."""

from __future__ import annotations

from typing import Any

import openai
from pytest_bdd import given, parsers, then, when

from tests.bdd.steps.clients import Answer, Endpoint
from tests.support.machine import Machine


@given("bee is a model for reranking")
def fake_ranks(machine: Machine) -> None:
    machine.fake(ranks=True)


@when(
    parsers.parse('a client reranks "{one}", "{two}" and "{three}" for "{query}"'),
    target_fixture="answer",
)
def reranks(endpoint: Endpoint, model: str, one: str, two: str, three: str, query: str) -> Answer:
    body = {"model": model, "query": query, "documents": [one, two, three]}
    with endpoint.openai() as client:
        try:
            got: Any = client.post("/rerank", body=body, cast_to=object)
        except openai.APIError as error:
            return Answer(error=error)
    return Answer(names=[str(result["index"]) for result in got["results"]])


@then(parsers.parse("document {first:d} is first, then document {second:d}"))
def is_first(answer: Answer, first: int, second: int) -> None:
    assert answer.names[:2] == [str(first), str(second)]
