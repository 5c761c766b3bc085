"""Answers in the forms of ten models are read as they grow; what is no form is text, and never an error."""

from __future__ import annotations

import json

import pytest

from rbee.worker.chat import library
from rbee.worker.chat.answers import MAX_DEPTH, AnswerReader
from rbee.worker.chat.forms import AnswerForm
from rbee.worker.chat.library import AnswerMessage
from rbee.worker.chat.rendering import Chat
from tests.chat.conversations import TOOL
from tests.chat.outputs import OUTPUTS, Output

pytestmark = pytest.mark.engine


def reader(template: str) -> AnswerReader:
    """Return a reader of answers to a request with a tool."""
    package = library.folder()
    assert package is not None
    source = (package / "chat_templates" / f"{template}.jinja").read_text(encoding="utf-8")
    chat = Chat(source, begin="<s>", end="</s>")
    form = AnswerForm.model_validate(chat.form({"tools": [TOOL], "tool_choice": "auto"}))
    found = form.reader(begun="", single=False)
    assert found is not None
    return found


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda one: one.template)
def test_a_whole_answer_is_read_apart(output: Output) -> None:
    """Thought, content and call come apart, the call with arguments that are JSON."""
    message = reader(output.template).read(output.text, final=True)

    assert message.reasoning.strip() == output.thought
    assert message.content.strip() == output.content
    (call,) = message.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("count_bees", {"hive": "north", "hours": 3})


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda one: one.template)
def test_an_answer_grows_and_takes_nothing_back(output: Output) -> None:
    """Read after each character, what was there of thought, content and arguments stays, and goes on."""
    reading = reader(output.template)
    before = AnswerMessage("", "", ())
    for end in range(1, len(output.text) + 1):
        now = reading.read(output.text[:end], final=end == len(output.text))
        assert now.reasoning.startswith(before.reasoning), (before, now)
        assert now.content.startswith(before.content), (before, now)
        for was, call in zip(before.tool_calls, now.tool_calls, strict=False):
            assert call.name.startswith(was.name)
            assert call.arguments.startswith(was.arguments), (was, call)
        assert len(now.tool_calls) >= len(before.tool_calls)
        before = now
    assert before.tool_calls


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda one: one.template)
def test_a_malformed_call_is_text(output: Output) -> None:
    """What is no call after all is the content of the answer, whole but for the thought before it, and no error."""
    message = reader(output.template).read(output.malformed, final=True)

    assert message == AnswerMessage(output.rest or output.malformed, message.reasoning, ())
    assert message.reasoning.strip() == ("x" if output.rest else "")


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda one: one.template)
def test_an_answer_that_is_cut_off_is_read_as_far_as_it_goes(output: Output) -> None:
    """At whatever character an answer ends, it is read without an error, and no text becomes part of a call's name."""
    for end in range(1, len(output.text)):
        message = reader(output.template).read(output.text[:end], final=True) if end % 7 == 0 else None
        if message is not None:
            assert all(call.name == "count_bees" for call in message.tool_calls)


def test_brackets_without_end_are_text() -> None:
    """An answer that nests deeper than the parser's stack allows is text, and the process goes on."""
    text = '<tool_call>\n{"name": "count_bees", "arguments": {"hive": ' + "[" * 100_000

    assert reader("Qwen-Qwen3-0.6B").read(text, final=False) == AnswerMessage("", "", ())
    assert reader("Qwen-Qwen3-0.6B").read(text, final=True).content == text
    balanced = "[]" * 10 * MAX_DEPTH
    assert reader("Qwen-Qwen3-0.6B").read(balanced, final=True).content == balanced
