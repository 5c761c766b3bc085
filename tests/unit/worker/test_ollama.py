"""Ollama's conversations as templates take them, and what a model can do in the words of each list."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.contracts.ollama import GenerateRequest, OllamaChatRequest
from rbee.daemonkit.model_lists import ListedModel
from rbee.daemonkit.ollama_lists import tagged
from rbee.worker.capabilities import capabilities_of
from rbee.worker.compat.chat_params import Thinking
from rbee.worker.compat.ollama import generate_params, to_chat_params
from rbee.worker.engine.protocol import ModelFacts

ASK = {"role": "user", "content": "Is it warm?"}


def facts(**more: Any) -> ModelFacts:
    return ModelFacts(
        description="bee",
        context=100,
        train_context=200,
        vocabulary=10,
        layers=1,
        size_bytes=1,
        chat_template=None,
        begin_text="",
        end_text="",
        **more,
    )


def called(name: str, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": {"city": "Paris"}}, **more}


def test_results_without_an_id_belong_to_the_calls_before_them() -> None:
    """Ollama's clients name the tool or nothing at all: each result gets the id of a call that has none yet."""
    messages = [
        {**ASK, "role": "USER"},
        {"role": "assistant", "thinking": "I look.", "tool_calls": [called("weather"), called("clock", id="c9")]},
        {"role": "tool", "content": "noon", "tool_name": "clock"},
        {"role": "tool", "content": "21 degrees"},
        {"role": "tool", "content": "late", "tool_call_id": "c7"},
    ]

    asked, calls, *results = to_chat_params(OllamaChatRequest.model_validate({"messages": messages})).messages

    first, second = (call["id"] for call in calls["tool_calls"])
    assert (asked["role"], calls["reasoning_content"], second) == ("user", "I look.", "c9")
    assert calls["tool_calls"][0]["function"]["arguments"] == {"city": "Paris"}
    assert [(one["tool_call_id"], one.get("name")) for one in results] == [
        ("c9", "clock"),
        (first, "weather"),
        ("c7", None),
    ]


@pytest.mark.parametrize(
    ("think", "expected"),
    [
        (None, Thinking()),
        (False, Thinking(enabled=False)),
        (True, Thinking(enabled=True)),
        ("low", Thinking(enabled=True, effort="low")),
    ],
)
def test_a_client_says_whether_and_how_much_a_model_thinks(think: Any, expected: Thinking) -> None:
    """A word says both, and nothing leaves it to the model."""
    assert to_chat_params(OllamaChatRequest.model_validate({"messages": [ASK], "think": think})).thinking == expected


@pytest.mark.parametrize("limit", [-1, -2, None])
def test_a_negative_limit_is_none(limit: int | None) -> None:
    """-1 and -2 are Ollama's ways to say that an answer may fill the context."""
    options = {"num_predict": limit, "seed": -1, "top_k": -1}
    params = generate_params(GenerateRequest.model_validate({"prompt": "x", "system": "Be brief.", "options": options}))

    assert (params.limit, params.seed, params.sampling.top_k) == (None, None, 0)
    assert [message["role"] for message in params.messages] == ["system", "user"]


@pytest.mark.parametrize(
    ("model", "template", "expected"),
    [
        (facts(), {}, ("completion",)),
        (facts(), {"capabilities": {"supports_tools": True}, "thinking": True}, ("completion", "tools", "thinking")),
        (facts(), {"capabilities": {"supports_tools": False}, "thinking": False}, ("completion",)),
        (facts(embedding=8), {"thinking": True}, ("embeddings",)),
        (facts(embedding=1, ranks=True), {}, ("rerank",)),
    ],
)
def test_what_a_model_can_do_is_said_by_its_file_and_its_template(
    model: ModelFacts, template: dict[str, Any], expected: tuple[str, ...]
) -> None:
    """A model for vectors writes no text, and tools and thoughts are what its template knows."""
    assert capabilities_of(model, template) == expected


def test_ollama_has_its_own_word_for_embeddings() -> None:
    """The same model is described in the words of each list."""
    model = ListedModel("bee", 0.0, capabilities=("embeddings",))

    assert (model.card().capabilities, tagged(model).capabilities) == (["embeddings"], ["embedding"])
