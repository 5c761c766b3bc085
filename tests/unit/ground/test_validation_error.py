"""What pydantic finds wrong with a request, as the one error body."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from rbee.contracts.hives import NodeSpec
from rbee.contracts.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from rbee.contracts.tasks import TaskRequest
from rbee.daemonkit.errors import validation_error
from rbee.daemonkit.json_body import JsonParser, parse_as
from rbee.errors import RbeeError

HELLO: Any = [{"role": "user", "content": "Bees?"}]


def refused(**fields: Any) -> RbeeError:
    """Return the error for a task with *fields*."""
    with pytest.raises(RbeeError) as refusal:
        parse_as(TaskRequest, {"model": "demo", "prompt": "hello", **fields})
    return refusal.value


def test_a_backend_that_does_not_exist_has_a_code_of_its_own() -> None:
    """The code is INVALID_BACKEND, and the message names the value and the valid ones."""
    error = refused(backend="vulkan")

    assert error.code == "INVALID_BACKEND"
    assert error.http_status == 400
    assert error.message == "There is no backend 'vulkan'; valid backends are 'cuda', 'metal' or 'cpu'."
    assert error.param == "backend"
    assert error.details["errors"][0]["field"] == "backend"


@pytest.mark.parametrize("given", [7, ["cpu"], "x" * 10_000], ids=["number", "list", "long"])
def test_the_message_stays_short_whatever_was_given(given: object) -> None:
    """Any value in place of a backend is refused in one short sentence."""
    error = refused(backend=given)

    assert error.code == "INVALID_BACKEND"
    assert len(error.message) < 150


def test_the_first_finding_decides_the_code() -> None:
    """A request whose first error is in another field is an INVALID_REQUEST."""
    error = refused(max_tokens=0, backend="vulkan")

    assert error.code == "INVALID_REQUEST"
    assert [item["field"] for item in error.details["errors"]] == ["max_tokens", "backend"]


def test_another_enumeration_is_an_invalid_request() -> None:
    """The code is for the field `backend` alone, not for every field that holds backends."""
    with pytest.raises(ValidationError) as refusal:
        NodeSpec.model_validate({"node_name": "attic", "ssh_host": "attic", "backends": ["vulkan"]})

    assert validation_error(list(refusal.value.errors(include_url=False))).code == "INVALID_REQUEST"


@pytest.mark.parametrize(
    ("model", "body", "field", "reason"),
    [
        (EmbeddingRequest, {"input": ["x"] * 2049}, "input", "at most 2048 items"),
        (EmbeddingRequest, {"input": []}, "input", "at least 1 item"),
        (EmbeddingRequest, {"input": ["a", 5]}, "input.1", "a valid string (got 5)"),
        (EmbeddingRequest, {"input": [1, "a"]}, "input.1", "a valid integer"),
        (EmbeddingRequest, {"input": [[1], []]}, "input.1", "at least 1 item"),
        (EmbeddingRequest, {"input": 5}, "input", "a valid string (got 5)"),
        (CompletionRequest, {"prompt": ["x"] * 257}, "prompt", "at most 256 items"),
        (ChatRequest, {"messages": HELLO, "tool_choice": "all"}, "tool_choice", "'none', 'auto' or 'required'"),
        (
            ChatRequest,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            "messages.0.content.0.text",
            "a valid string (got 5)",
        ),
    ],
)
def test_of_several_forms_of_a_field_the_one_that_was_meant_is_told(
    model: type[BaseModel], body: dict[str, Any], field: str, reason: str
) -> None:
    """A list that is too long is not said to be no string: the form that fits best decides the message."""
    with pytest.raises(RbeeError) as refusal:
        JsonParser(model)(json.dumps(body).encode())

    assert refusal.value.param == field
    assert reason in refusal.value.message


def test_a_text_that_does_not_match_is_told_what_it_must_be() -> None:
    """The pattern of a field is put into words, with what was given."""
    with pytest.raises(RbeeError) as refusal:
        parse_as(NodeSpec, {"node_name": "at tic", "ssh_host": "attic"})

    assert refusal.value.message == (
        "node_name: must be letters, digits, dots, dashes and underscores, the first and the last a letter or digit "
        "(got 'at tic')."
    )
