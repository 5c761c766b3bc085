"""Requests of the dialects as the parameters of a chat: histories with thoughts and calls, choices, what is cut."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from rbee.contracts.anthropic import MessagesRequest
from rbee.contracts.ollama import GenerateRequest, OllamaChatRequest
from rbee.contracts.openai import ChatRequest
from rbee.contracts.responses import ResponsesRequest
from rbee.contracts.served import Preset
from rbee.contracts.tasks import InferenceRequest
from rbee.errors import RbeeError
from rbee.queen.tasks.presets import TASKS, with_defaults
from rbee.worker.compat import chat, messages, ollama, responses
from rbee.worker.generation_request import from_inference_request

HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Bees?"}]
WEATHER = {"name": "weather", "input_schema": {"type": "object"}}
NONE_ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": []}}


def of_messages(**fields: Any) -> Any:
    return messages.to_chat_params(MessagesRequest.model_validate({"max_tokens": 5, "messages": HELLO, **fields}))


def tool_with(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "count", "parameters": schema}}


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


RESULT = {"role": "tool", "tool_call_id": "c1", "content": "7"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "7"}
TOOL_RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "7"}]}


def of_ollama(*messages: dict[str, Any]) -> Any:
    return ollama.to_chat_params(OllamaChatRequest.model_validate({"messages": [*HELLO, *messages]}))


def called(call_id: str | None) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [{"id": call_id, "function": {"name": "count", "arguments": None}}]}


@pytest.mark.parametrize(
    ("ask", "place"),
    [
        (partial(of_chat, messages=[*HELLO, RESULT]), "messages.1"),
        (partial(of_chat, messages=[*HELLO, RESULT, called("c1")]), "messages.1"),
        (partial(of_chat, messages=[*HELLO, called("c2"), RESULT]), "messages.2"),
        (partial(of_messages, messages=[TOOL_RESULT]), "messages.0.content.0"),
        (partial(of_responses, [*HELLO, OUTPUT]), "input.1"),
        (partial(of_ollama, {"role": "tool", "content": "7"}), "messages.1"),
    ],
)
def test_a_result_without_a_call_is_refused(ask: Callable[[], Any], place: str) -> None:
    """What no call before it asked for would be read as something else; the place and the next step are told."""
    with pytest.raises(RbeeError, match=r"no call .*comes before it") as caught:
        ask()

    assert caught.value.param == place
    assert "call before the result" in caught.value.hint


@pytest.mark.parametrize(
    "messages",
    [
        [called("c1"), RESULT],
        [called(None), RESULT],
        [called("c2"), {"role": "tool", "content": "7"}],
        [{"role": "assistant", "function_call": {"name": "count", "arguments": {}}}, {**RESULT, "role": "function"}],
    ],
)
def test_results_are_of_the_calls_before_them(messages: list[dict[str, Any]]) -> None:
    """By id, or where one of both has none, as the calls come; calls in the form that tools have replaced count too."""
    _, said, result = of_chat(messages=[*HELLO, *messages]).messages

    assert said["tool_calls"][0]["function"] == {"name": "count", "arguments": {}}
    assert result["content"] == "7"


@pytest.mark.parametrize(
    ("params", "named"),
    [
        (
            of_chat(messages=[*HELLO, {"role": "assistant", "tool_calls": [{"id": "c1", "type": "custom"}]}, RESULT]),
            ("messages.1.tool_calls.0: custom", "messages.2: tool"),
        ),
        (
            of_responses([*HELLO, {"type": "local_shell_call", "call_id": "c1", "action": {"type": "exec"}}, OUTPUT]),
            ("input.1: local_shell_call", "input.2: function_call_output"),
        ),
        (
            of_responses([{"type": "tool_search_call", "arguments": {"a": 1}, "output": [{"stdout": "x"}]}, *HELLO]),
            ("input.0: tool_search_call",),
        ),
        (
            of_messages(
                messages=[
                    *HELLO,
                    {
                        "role": "assistant",
                        "content": [
                            {"type": "code_execution_tool_result", "content": {"type": "x", "stdout": "y"}},
                            {"type": "text", "text": "So."},
                        ],
                    },
                ]
            ),
            ("messages.1.content.0: code_execution_tool_result",),
        ),
        (
            of_chat(messages=[{**HELLO[0], "reasoning_content": "Hm."}]),
            ("messages.0: reasoning_content of user",),
        ),
        (
            of_messages(messages=[{"role": "user", "content": [{"type": "thinking", "thinking": "Hm."}]}]),
            ("messages.0.content.0: thinking of user",),
        ),
        (of_ollama({"role": "user", "content": "x", "thinking": "Hm."}), ("messages.1: thinking of user",)),
        (of_chat(web_search_options={"a": 1}, ignore_eos=True, user="u"), ("web_search_options", "ignore_eos")),
        (of_messages(mcp_servers=[{"type": "url"}]), ("mcp_servers",)),
        (of_responses(HELLO, include=["message.output_text.logprobs"]), ("include: message.output_text.logprobs",)),
    ],
)
def test_what_no_model_understands_is_left_out_and_named(params: Any, named: tuple[str, ...]) -> None:
    """Whatever its fields hold, and with the result of a call that is left out; what others heed is named too."""
    assert params.ignored == named
    assert not any("tool_calls" in message or "reasoning_content" in message for message in params.messages)


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (partial(of_responses, [{"type": "item_reference", "id": "msg_1"}, *HELLO]), "input.0"),
        (partial(of_responses, HELLO, prompt={"id": "pmpt_1"}), "prompt"),
        (partial(of_responses, [{"type": "web_search_call"}]), "input"),
        (partial(of_chat, functions=[{"name": "count"}]), "functions"),
        (partial(of_chat, tool_choice={"type": "custom", "custom": {"name": "x"}}), "tool_choice"),
        (partial(of_chat, tool_choice={"type": "function"}), "tool_choice"),
        (partial(of_responses, HELLO, tool_choice={"type": "web_search"}), "tool_choice"),
        (partial(of_chat, tools=[tool_with({"type": "array"})]), "tools.0.function.parameters"),
        (partial(of_chat, tools=[{"type": "custom"}, tool_with({"type": "string"})]), "tools.1.function.parameters"),
        (partial(of_messages, tools=[{"name": "x", "input_schema": {"type": ["null"]}}]), "tools.0.input_schema"),
        (
            partial(of_responses, HELLO, tools=[{**tool_with({"type": 3})["function"], "type": "function"}]),
            "tools.0.parameters",
        ),
        (partial(of_chat, chat_template_kwargs={"enable_thinking": "no"}), "chat_template_kwargs.enable_thinking"),
        (partial(of_chat, tools=[tool_with({})], tool_choice=NONE_ALLOWED), "tool_choice"),
    ],
)
def test_what_would_change_the_meaning_is_refused(ask: Callable[[], Any], field: str) -> None:
    """What is stored elsewhere, was replaced, or cannot be: the request's own field is named."""
    with pytest.raises(RbeeError) as caught:
        assert ask().conversation != ask().callable_tools

    assert caught.value.param == field


def test_a_refusal_in_a_history_is_a_text() -> None:
    """The assistant's refusal is what it said."""
    (said,) = of_responses([{"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}]).messages

    assert said["content"] == "No."


def test_fields_of_llama_server_are_heeded() -> None:
    """A schema beside the messages is the answer's, and a budget of -1 is none."""
    params = of_chat(json_schema={"type": "object"}, thinking_budget_tokens=-1)

    assert (params.answer.param, params.thinking.budget) == ("json_schema", None)


@pytest.mark.parametrize(
    ("params", "field"),
    [
        (of_messages(output_config={"format": {"type": "json_schema", "schema": {}}}), "output_config.format"),
        (of_messages(output_format={"type": "json_schema", "schema": {}}), "output_format"),
        (of_responses(HELLO, text={"format": {"type": "json_object"}}), "text.format"),
        (of_chat(response_format={"type": "json_object"}), "response_format"),
    ],
)
def test_a_format_is_named_as_its_dialect_does(params: Any, field: str) -> None:
    """What cannot be held of a schema is told with the field that the client wrote."""
    assert params.answer.param == field


@pytest.mark.parametrize(
    ("path", "fields", "model", "translate"),
    [
        ("/v1/chat/completions", {"messages": HELLO}, ChatRequest, chat.to_chat_params),
        ("/v1/messages", {"messages": HELLO}, MessagesRequest, messages.to_chat_params),
        ("/v1/responses", {"input": "Bees?"}, ResponsesRequest, responses.to_chat_params),
        ("/api/chat", {"messages": HELLO}, OllamaChatRequest, ollama.to_chat_params),
        ("/api/generate", {"prompt": "Bees?"}, GenerateRequest, ollama.generate_params),
        (TASKS, {"prompt": "Bees?"}, InferenceRequest, from_inference_request),
    ],
    ids=["chat", "messages", "responses", "ollama-chat", "ollama-generate", "tasks"],
)
@pytest.mark.parametrize(
    "thinking", [{"enable_thinking": False}, {"enable_thinking": True}, {"reasoning_effort": "low"}]
)
def test_a_preset_means_the_same_in_every_dialect(
    path: str, fields: dict[str, Any], model: Any, translate: Any, thinking: dict[str, Any]
) -> None:
    """What the queen writes into a request, the worker reads as the same sampling, limit, prompt and thinking."""
    sampling = {"temperature": 1.5, "top_p": 0.8, "top_k": 20, "min_p": 0.0, "repeat_penalty": 1.05}
    preset = Preset(**sampling, presence_penalty=1.5, max_tokens=64, system="Be brief.", **thinking)

    params = translate(model.model_validate(with_defaults(path, fields, preset)))

    found = params.sampling.model_dump()
    assert {name: found[name] for name in (*sampling, "presence_penalty")} == {**sampling, "presence_penalty": 1.5}
    assert params.limit == 64
    said = params.conversation
    assert [(message["role"], message["content"]) for message in said.messages] == [
        ("system", "Be brief."),
        ("user", "Bees?"),
    ]
    if "enable_thinking" in thinking:
        assert said.thinking is thinking["enable_thinking"]
    else:
        assert said.template_kwargs["reasoning_effort"] == "low"
