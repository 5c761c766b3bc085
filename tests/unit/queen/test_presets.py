"""What a preset says is written where each dialect has it, and never over what the client says."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from rbee.contracts.served import Preset
from rbee.contracts.tasks import TaskRequest
from rbee.daemonkit.dialects import COMPAT_ROUTES
from rbee.queen.tasks.presets import TASKS, with_defaults

PRESET = Preset(
    temperature=1.5,
    top_p=0.8,
    top_k=20,
    min_p=0.0,
    repeat_penalty=1.05,
    presence_penalty=1.5,
    max_tokens=64,
    enable_thinking=True,
    reasoning_effort="high",
    system="Be brief.",
)
SAMPLING = {
    "temperature": 1.5,
    "top_p": 0.8,
    "top_k": 20,
    "min_p": 0.0,
    "repeat_penalty": 1.05,
    "presence_penalty": 1.5,
}
HELLO = {"role": "user", "content": "Hello"}
SYSTEM = {"role": "system", "content": "Be brief."}
CHAT = {"messages": [HELLO]}
KWARGS = {"chat_template_kwargs": {"enable_thinking": True}}
# For each dialect a request that says nothing of what the preset does, and what is added to it.
ADDED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "/v1/chat/completions": (
        CHAT,
        {**SAMPLING, "max_tokens": 64, **KWARGS, "reasoning_effort": "high", "messages": [SYSTEM, HELLO]},
    ),
    "/apply-template": (
        CHAT,
        {**SAMPLING, "max_tokens": 64, **KWARGS, "reasoning_effort": "high", "messages": [SYSTEM, HELLO]},
    ),
    "/v1/completions": ({"prompt": "Hello"}, {**SAMPLING, "max_tokens": 64}),
    "/v1/responses": (
        {"input": "Hello"},
        {
            **SAMPLING,
            "max_output_tokens": 64,
            **KWARGS,
            "reasoning": {"effort": "high"},
            "instructions": "Be brief.",
        },
    ),
    "/v1/messages": (
        CHAT,
        {
            **SAMPLING,
            "max_tokens": 64,
            "thinking": {"type": "enabled"},
            "output_config": {"effort": "high"},
            "system": "Be brief.",
        },
    ),
    "/v1/messages/count_tokens": (
        CHAT,
        {
            **SAMPLING,
            "max_tokens": 64,
            "thinking": {"type": "enabled"},
            "output_config": {"effort": "high"},
            "system": "Be brief.",
        },
    ),
    "/api/chat": (
        CHAT,
        {"options": {**SAMPLING, "num_predict": 64}, "think": "high", "messages": [SYSTEM, HELLO]},
    ),
    "/api/generate": (
        {"prompt": "Hello"},
        {"options": {**SAMPLING, "num_predict": 64}, "think": "high", "system": "Be brief."},
    ),
    TASKS: (
        {"prompt": "Hello"},
        {**SAMPLING, "max_tokens": 64, "enable_thinking": True, "reasoning_effort": "high", "system": "Be brief."},
    ),
}
REQUESTS = {route.path: route.request for route in COMPAT_ROUTES} | {TASKS: TaskRequest}
WITHOUT = ("/v1/embeddings", "/v1/rerank", "/api/embed", "/api/embeddings", "/tokenize", "/detokenize")


def test_every_route_that_takes_a_prompt_is_in_the_table() -> None:
    """A route that is added must be thought of here."""
    assert {*ADDED, *WITHOUT} == set(REQUESTS)


@pytest.mark.parametrize("path", ADDED)
def test_what_the_client_does_not_say_is_the_presets(path: str) -> None:
    """All that the dialect can carry is added, and the dialect's own model takes it with the values of the preset."""
    given, added = ADDED[path]
    asked = {"model": "m", **given}
    before = copy.deepcopy(asked)

    found = with_defaults(path, asked, PRESET)

    assert found == {**asked, **added}
    assert asked == before
    parsed = REQUESTS[path].model_validate(found).model_dump(exclude_unset=True)
    if path != "/v1/messages/count_tokens":  # which has no sampling, and leaves it out
        assert added.keys() <= parsed.keys()


@pytest.mark.parametrize("path", ADDED)
def test_what_the_client_says_stays(path: str) -> None:
    """A request that says all of it itself is not changed, and is the very same object."""
    given, added = ADDED[path]
    other = {key: _other(value) for key, value in added.items()}
    asked = {**given, **other}
    assert with_defaults(path, asked, PRESET) is asked


def _other(value: Any) -> Any:
    """Give another value of the same kind."""
    if isinstance(value, dict):
        return {key: _other(one) for key, one in value.items()}
    if isinstance(value, list):
        return [{"role": "System", "content": "Sing."}, *value[1:]]
    return {bool: False, int: 7, float: 0.5}.get(type(value), "low")


@pytest.mark.parametrize("path", ADDED)
def test_null_says_nothing(path: str) -> None:
    """Clients that write every field, the unset ones as null, get the same as those that leave them out."""
    given, added = ADDED[path]
    asked = dict.fromkeys(added) | given
    assert with_defaults(path, asked, PRESET) == {**given, **added}


@pytest.mark.parametrize("path", ADDED)
def test_an_empty_preset_is_only_a_name(path: str) -> None:
    """Nothing is written anew."""
    asked = {"model": "m", **ADDED[path][0]}
    assert with_defaults(path, asked, Preset()) is asked


@pytest.mark.parametrize("path", WITHOUT)
def test_what_generates_nothing_takes_nothing(path: str) -> None:
    """Vectors and tokens have no sampling, and their texts are no prompts."""
    asked = {"model": "m", "input": "x", "content": "x"}
    assert with_defaults(path, asked, PRESET) is asked


@pytest.mark.parametrize(
    ("path", "said", "left_out"),
    [
        ("/v1/chat/completions", {"max_completion_tokens": 9}, {"max_tokens"}),
        ("/v1/chat/completions", {"reasoning_effort": "low"}, {"chat_template_kwargs"}),
        ("/v1/chat/completions", {"thinking_budget_tokens": 9}, {"chat_template_kwargs", "reasoning_effort"}),
        ("/v1/chat/completions", {"chat_template_kwargs": {"enable_thinking": False}}, {"reasoning_effort"}),
        ("/v1/responses", {"reasoning": {"effort": "none"}}, {"chat_template_kwargs"}),
        ("/v1/messages", {"thinking": {"type": "disabled"}}, {"output_config"}),
        ("/v1/messages", {"output_config": {"effort": "low"}}, {"thinking"}),
        (TASKS, {"enable_thinking": False}, {"reasoning_effort"}),
        ("/api/generate", {"raw": True}, {"system"}),
        (TASKS, {"raw": True}, {"system"}),
    ],
)
def test_what_a_client_says_of_a_matter_counts_for_all_of_it(
    path: str, said: dict[str, Any], left_out: set[str]
) -> None:
    """A limit has two names, thinking has several, and a raw prompt has no system prompt; the rest is still added."""
    given, added = ADDED[path]
    found = with_defaults(path, {**given, **said}, PRESET)
    assert set(found) == ({*given, *added, *said} - left_out)
    assert {key: found[key] for key in said} == said


@pytest.mark.parametrize("role", ["system", "developer", "SYSTEM"])
@pytest.mark.parametrize(
    ("path", "turns"),
    [
        ("/v1/chat/completions", "messages"),
        ("/api/chat", "messages"),
        ("/v1/messages", "messages"),
        ("/v1/responses", "input"),
        (TASKS, "messages"),
    ],
)
def test_a_system_prompt_among_the_turns_is_the_clients(path: str, turns: str, role: str) -> None:
    """Wherever it stands, no second one is added."""
    asked = {turns: [HELLO, {"role": role, "content": "Sing."}]}
    found = with_defaults(path, asked, Preset(system="Be brief."))
    assert found is asked


def test_a_part_of_an_object_that_is_not_said_is_added_to_it() -> None:
    """The client's options stay beside those of the preset, and its own object is not changed."""
    options = {"seed": 3, "top_k": 5}
    found = with_defaults("/api/chat", {"options": options, **CHAT}, Preset(top_k=20, max_tokens=64))
    assert found["options"] == {"seed": 3, "top_k": 5, "num_predict": 64}
    assert options == {"seed": 3, "top_k": 5}


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/api/chat", {"messages": []}),
        ("/api/chat", {}),
        ("/v1/chat/completions", {"messages": "Hello"}),
        ("/api/chat", {"options": "none", "messages": [1, None]}),
        ("/v1/responses", {"input": 3, "instructions": 4, "reasoning": []}),
    ],
)
def test_what_is_no_request_is_left_to_whoever_checks_it(path: str, asked: dict[str, Any]) -> None:
    """A load without messages stays a load; fields of another kind are not replaced."""
    found = with_defaults(path, asked, PRESET)
    said = {key: found[key] for key in asked}
    assert said in (asked, {"options": "none", "messages": [SYSTEM, 1, None]})


@pytest.mark.parametrize(
    ("enable", "effort", "think"), [(True, None, True), (False, None, False), (False, "low", False)]
)
def test_ollamas_think_is_a_switch_or_a_level(enable: bool, effort: Any, think: Any) -> None:
    """Off is off, whatever the level."""
    preset = Preset(enable_thinking=enable, reasoning_effort=effort)
    assert with_defaults("/api/chat", CHAT, preset)["think"] == think
