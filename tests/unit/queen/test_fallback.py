"""Which failures are a reason to try another model, in which order, and what is told in the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.contracts.served import ServedModel
from rbee.contracts.tasks import TaskRequest
from rbee.daemonkit.dialects import COMPAT_ROUTES
from rbee.errors import RbeeError
from rbee.queen.client_view import reduced_error, reduced_event
from rbee.queen.scheduling.client_blocks import Block
from rbee.queen.scheduling.rejections import blocked
from rbee.queen.serving.declarations import Alternative
from rbee.queen.tasks.fallback import Fallbacks, may_fall_back
from rbee.queen.tasks.upstream_request import (
    CompatRequest,
    RoutingOptions,
    task_to_alternative,
    task_with_preset,
    to_alternative,
)

NO_ROOM = RbeeError(ErrorCode.VRAM_EXHAUSTED, "No room.", details={"required_mb": 7}, hint="Buy memory.")
CRASH = RbeeError(ErrorCode.WORKER_CRASHED, "Worker w1 died.")
TOO_LONG = RbeeError(ErrorCode.CONTEXT_LENGTH_EXCEEDED, "Too long.")


def alternative(name: str, **preset: Any) -> Alternative:
    fields = {"name": f"{name}-model", "model": f"hf:org/{name}", "presets": {name: preset}}
    return Alternative(name, ServedModel.model_validate(fields))


def fallbacks(*names: str) -> Fallbacks:
    task = TaskRequest(model="hf:org/big", prompt="Hum")
    return Fallbacks("big", [alternative(name) for name in names], lambda each: task_to_alternative(task, each))


def raised(call: Callable[[], object]) -> RbeeError:
    with pytest.raises(RbeeError) as caught:
        call()
    return caught.value


NO_REASON = {
    *("INVALID_REQUEST", "context_length_exceeded", "INVALID_BACKEND", "FORBIDDEN", "TOO_MANY_REQUESTS"),
    *("CANCELED", "REQUEST_TIMEOUT", "QUEUE_FULL", "WORKER_CRASHED", "WORKER_STALLED", "INTERNAL"),
}


@pytest.mark.parametrize("name", sorted(NO_REASON))
def test_what_another_model_would_not_mend_is_told_at_once(name: str) -> None:
    """What is wrong with the request, its key or its time, and a request that ran when its worker ended."""
    error = RbeeError(ErrorCode(name), "No.")
    assert raised(lambda: fallbacks("a").after(error)) is error


@pytest.mark.parametrize(
    "name",
    [
        *("NODE_NOT_FOUND", "CONNECTION_TIMEOUT", "QUARANTINED", "DEVICE_YIELDED"),
        *("BACKEND_UNAVAILABLE", "RAM_EXHAUSTED"),
        *("DOWNLOAD_FAILED", "MODEL_INVALID", "MODEL_ACCESS_DENIED", "DISK_FULL"),
        *("WORKER_START_FAILED", "LOADING_TIMEOUT", "ALL_SLOTS_BUSY"),
    ],
)
def test_a_model_that_cannot_be_served_gives_way_to_the_next_one(name: str) -> None:
    """No place, no file, no worker: the first of its fallbacks is tried, and the client is told why."""
    chosen, request, told = fallbacks("a", "b").after(RbeeError(ErrorCode(name), "No luck."))
    assert (chosen.name, request.model) == ("a", "hf:org/a")
    assert (told.model, told.human) == ("a", "big cannot be served now (No luck): using a instead")
    shown = reduced_event(told)
    assert shown is not None
    assert shown.model_dump()["human"] == "the model cannot be served now: using a instead"


def test_when_all_have_failed_the_first_error_is_told() -> None:
    """With what became of each of the others; the error that others may be told too is not changed."""
    tried = fallbacks("a", "b")
    assert tried.after(NO_ROOM)[0].name == "a"
    assert tried.after(TOO_LONG)[0].name == "b"  # which the first might have taken
    told = raised(lambda: tried.after(RbeeError(ErrorCode.DISK_FULL, "Full.")))
    assert (told.code, told.message, told.hint) == (NO_ROOM.code, NO_ROOM.message, NO_ROOM.hint)
    assert told.details == {
        "required_mb": 7,
        "fallbacks": [
            {"name": "a", "code": "context_length_exceeded", "why": "Too long."},
            {"name": "b", "code": "DISK_FULL", "why": "Full."},
        ],
    }
    assert NO_ROOM.details == {"required_mb": 7}
    assert reduced_error(told).details == {"fallbacks": ["a", "b"]}


def test_a_crash_of_a_fallback_is_told_as_it_is() -> None:
    """The request ran there: it is handed on to nobody."""
    tried = fallbacks("a", "b")
    tried.after(NO_ROOM)
    assert raised(lambda: tried.after(CRASH)) is CRASH


def test_a_client_that_is_kept_from_a_model_is_not_sent_on_to_the_next() -> None:
    """Its requests ended workers; a fleet that quarantines the model for all is another thing."""
    kept = blocked(Block("hf:org/big", "id", 3, "it died", 600), 0).error()
    assert kept.code is ErrorCode.QUARANTINED
    assert raised(lambda: fallbacks("a").after(kept)) is kept


def test_a_request_is_made_anew_for_each_model() -> None:
    """Its presets apply to what the client has sent, not to what it was for the model before."""
    first = TaskRequest(model="big-brief", prompt="Hum", top_p=0.5)
    brief = alternative("brief", temperature=0, top_p=0.9, system="Be brief.").preset
    assert task_with_preset(first, brief).inference().items() >= {"temperature": 0, "top_p": 0.5}.items()
    other = task_to_alternative(first, alternative("long", max_tokens=900))
    assert (other.model, other.max_tokens, other.temperature, other.top_p) == ("hf:org/long", 900, 0.7, 0.5)
    assert other.system is None

    body = '{"model":"big-brief","messages":[{"role":"user","content":"hé\U0001f41d"}],"seed":12345678901234567890}'
    request = CompatRequest(
        "big", "hf:org/big", "/v1/chat/completions", body.encode(), stream=False, options=RoutingOptions()
    )
    long = alternative("long", max_tokens=900, system="S")
    made = to_alternative(request, long)
    assert made.body.decode() == (
        '{"model":"long","messages":[{"role":"system","content":"S"},{"role":"user","content":"hé\U0001f41d"}],'
        '"seed":12345678901234567890,"max_tokens":900}'
    )
    assert (made.model, made.served, made.rewritten) == ("hf:org/long", long.model, True)


@pytest.mark.parametrize("path", [route.path for route in COMPAT_ROUTES])
def test_vectors_and_tokens_are_those_of_the_model_that_was_asked_for(path: str) -> None:
    """Text may come from another model, and an order of documents; numbers of another one would be mistaken."""
    of_the_model = {"/v1/embeddings", "/api/embed", "/api/embeddings", "/tokenize", "/detokenize", "/apply-template"}
    counted = {"/v1/messages/count_tokens"}
    assert may_fall_back(path, {"prompt": "x"}) == (path not in of_the_model | counted)


@pytest.mark.parametrize(
    "fields", [{"prompt": [1, 2]}, {"prompt": [[1], [2]]}, {"prompt": "x", "logit_bias": {"5": 1}}]
)
def test_a_request_that_names_tokens_by_number_stays(fields: dict[str, Any]) -> None:
    """They mean something else to another model."""
    assert not may_fall_back("/v1/completions", fields)
    assert may_fall_back("/v1/completions", {"prompt": ["x", "y"], "logit_bias": {}})
