"""What pydantic finds wrong with a request, as the one error body."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rbee.contracts.hives import NodeSpec
from rbee.contracts.tasks import TaskRequest
from rbee.daemonkit.errors import validation_error
from rbee.daemonkit.json_body import parse_as
from rbee.errors import RbeeError


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
