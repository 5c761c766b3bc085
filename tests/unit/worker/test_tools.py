"""Calls of tools: the form that a template teaches, and what is read out of a model's text."""

from __future__ import annotations

import json

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.edge.tools import FORMS, Call, CallForm, CallReader, form_of

HERMES, MISTRAL, LLAMA = FORMS
ONE = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
TWO = ONE + "\n" + ONE.replace("Paris", "Rome")


def read(form: CallForm, text: str, *, cut: int = 0) -> tuple[str, list[tuple[str, object]]]:
    """Read a text in two pieces; gives what is shown and the calls."""
    reader = CallReader(form)
    items = [*reader.feed(text[:cut]), *reader.feed(text[cut:]), *reader.finish()]
    calls = [(item.name, json.loads(item.arguments)) for item in items if isinstance(item, Call)]
    return "".join(item for item in items if isinstance(item, str)), calls


@pytest.mark.parametrize(
    ("form", "text", "shown", "cities"),
    [
        (HERMES, ONE, "", ["Paris"]),
        (HERMES, TWO, "", ["Paris", "Rome"]),
        (HERMES, "I ask. " + ONE, "I ask. ", ["Paris"]),
        (HERMES, ONE.removesuffix("\n</tool_call>"), "", ["Paris"]),
        (HERMES, "a < b <tool> c", "a < b <tool> c", []),
        (HERMES, "<tool_call>nonsense</tool_call> so", "<tool_call>nonsense</tool_call> so", []),
        (HERMES, '<tool_call>{"name": 3, "arguments": {}}', '<tool_call>{"name": 3, "arguments": {}}', []),
        (MISTRAL, '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}}]', "", ["Paris"]),
        (LLAMA, '{"name": "weather", "parameters": {"city": "Paris"}}', "", ["Paris"]),
        (LLAMA, '{"name": "weather"}', '{"name": "weather"}', []),
        (LLAMA, "plain words", "plain words", []),
    ],
)
def test_a_text_is_parted_into_words_and_calls(form: CallForm, text: str, shown: str, cities: list[str]) -> None:
    """Calls are found wherever a text is cut; what is no call stays text, and nothing is lost."""
    for cut in range(len(text) + 1):
        assert read(form, text, cut=cut) == (shown, [("weather", {"city": city}) for city in cities])


def test_what_may_become_a_call_is_held_back() -> None:
    """Nothing of a call's beginning is shown before it is clear that it is none."""
    reader = CallReader(HERMES)

    assert reader.feed("Hello <tool") == ["Hello "]
    assert reader.feed("box> there") == ["<toolbox> there"]


def test_calls_have_ids_of_their_own() -> None:
    """Two calls of the same tool can be told apart."""
    reader = CallReader(HERMES)

    calls = [item for item in [*reader.feed(TWO), *reader.finish()] if isinstance(item, Call)]

    assert calls[0].id != calls[1].id


def test_the_template_tells_the_form() -> None:
    """Each form is known by its sign in a template that looks at tools."""
    for form in FORMS:
        assert form_of(f"{{{{ tools }}}} ... {form.sign} ...", frozenset({"tools"})) is form


@pytest.mark.parametrize(
    ("source", "names"), [("<tool_call>", frozenset[str]()), ("{{ tools }}", frozenset({"tools"}))]
)
def test_a_template_without_tools_refuses_them(source: str, names: frozenset[str]) -> None:
    """Tools are refused where the template knows none, or writes calls in a way that cannot be read."""
    with pytest.raises(RbeeError) as caught:
        form_of(source, names)

    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.param == "tools"
