"""Requests of the dialects as the parameters of a chat: histories with thoughts and calls, choices, what is cut."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.contracts.anthropic import MessagesRequest
from rbee.contracts.openai import ChatRequest
from rbee.contracts.responses import ResponsesRequest
from rbee.errors import RbeeError
from rbee.worker.compat import chat, messages, responses

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Bees?"}]
WEATHER = {"name": "weather", "input_schema": {"type": "object"}}


def of_messages(**fields: Any) -> Any:
    return messages.to_chat_params(MessagesRequest.model_validate({"max_tokens": 5, "messages": HELLO, **fields}))


def of_chat(**fields: Any) -> Any:
    return chat.to_chat_params(ChatRequest.model_validate({"messages": HELLO, **fields}))


def of_responses(items: list[dict[str, Any]], **fields: Any) -> Any:
    return responses.to_chat_params(ResponsesRequest.model_validate({"input": items, **fields}))


def test_what_a_client_changes_with_every_request_is_cut() -> None:
    """The count at the end of a billing line would keep the prompt out of the cache; all else of the system stays."""
    system = "Be kind.\nx-anthropic-billing-header: cc_version=2; cch=3f2a9;\nAnswer briefly."

    first, second = (of_messages(system=system.replace("3f2a9", count)) for count in ("3f2a9", "77777"))

    assert first.messages == second.messages
    assert first.messages[0]["content"] == "Be kind.\nx-anthropic-billing-header: cc_version=2;\nAnswer briefly."


def test_thoughts_and_calls_of_a_response_are_one_message() -> None:
    """Items of the assistant that follow each other are what a template knows as one message."""
    items: list[dict[str, Any]] = [
        {"role": "user", "content": "How many?"},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "A tool knows."}], "summary": []},
        {"role": "assistant", "content": "I look."},
        {"type": "function_call", "call_id": "c1", "name": "count", "arguments": '{"a": 1}'},
        {"type": "function_call", "call_id": "c2", "name": "count", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "7"},
        {"role": "assistant", "content": "Seven."},
        {"role": "assistant", "content": "Or eight."},
    ]

    _, said, result, *rest = of_responses(items).messages

    assert (said["reasoning_content"], said["content"]) == ("A tool knows.", "I look.")
    assert [call["id"] for call in said["tool_calls"]] == ["c1", "c2"]
    assert (result["role"], result["tool_call_id"], result["content"]) == ("tool", "c1", "7")
    assert [message["content"] for message in rest] == ["Seven.", "Or eight."]


def test_thoughts_of_a_message_go_back_into_its_history() -> None:
    """A thinking block is the thought of its message; one that is redacted says nothing."""
    blocks = [
        {"type": "thinking", "thinking": "A tool knows.", "signature": "x"},
        {"type": "redacted_thinking", "data": "?"},
        {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Paris"}},
    ]

    params = of_messages(messages=[*HELLO, {"role": "assistant", "content": blocks}, *HELLO])

    assert params.messages[1]["reasoning_content"] == "A tool knows."
    assert params.messages[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Paris"}}


@pytest.mark.parametrize(
    ("params", "choice", "chosen"),
    [
        (of_chat(tool_choice="required"), "required", None),
        (of_chat(tool_choice={"type": "function", "function": {"name": "a"}}), "required", ("a",)),
        (
            of_chat(
                tool_choice={
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "a"}}]},
                }
            ),
            "auto",
            ("a",),
        ),
        (
            of_responses(
                HELLO,
                tool_choice={"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "a"}]},
            ),
            "required",
            ("a",),
        ),
        (of_messages(tools=[WEATHER], tool_choice={"type": "any"}), "required", None),
        (of_messages(tools=[WEATHER], tool_choice={"type": "tool", "name": "weather"}), "required", ("weather",)),
        (of_messages(tools=[WEATHER], tool_choice={"type": "none"}), "none", None),
    ],
)
def test_a_choice_is_the_same_in_every_dialect(params: Any, choice: str, chosen: tuple[str, ...] | None) -> None:
    """Whether tools must be called, and which may be."""
    assert (params.tool_choice, params.chosen) == (choice, chosen)


@pytest.mark.parametrize(
    ("params", "enabled", "effort", "budget"),
    [
        (of_chat(), None, None, None),
        (of_chat(reasoning_effort="none"), False, "none", None),
        (of_chat(reasoning_effort="high", thinking_budget_tokens=9), None, "high", 9),
        (of_chat(chat_template_kwargs={"enable_thinking": False}), False, None, None),
        (of_responses(HELLO, reasoning={"effort": "minimal"}), None, "minimal", None),
        (of_messages(thinking={"type": "disabled"}), False, None, None),
        (of_messages(thinking={"type": "enabled", "budget_tokens": 64}), True, None, 64),
        (of_messages(thinking={"type": "adaptive"}, output_config={"effort": "low"}), None, "low", None),
    ],
)
def test_how_much_is_to_be_thought(params: Any, enabled: bool | None, effort: str | None, budget: int | None) -> None:
    """Each dialect's own fields say whether, how hard and for how long."""
    assert (params.conversation.thinking, params.thinking.effort, params.thinking.budget) == (enabled, effort, budget)


def test_a_conversation_that_the_server_should_keep_is_refused_with_its_code() -> None:
    """Clients that know of threads look for this code and send the whole conversation."""
    for ask in (of_messages, lambda **fields: of_responses(HELLO, **fields)):
        with pytest.raises(RbeeError, match="stores no conversations") as caught:
            ask(thread={"id": "t"})
        assert caught.value.details["error_code"] == "thread_unsupported_request"
