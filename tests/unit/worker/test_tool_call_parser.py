"""Calls read out of a model's text as it comes: each piece told once, and no sooner than it is sure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.worker.compat.tool_call_parser import Arguments, CallEnd, CallStart, ParsedPiece, ToolCallParser
from rbee.worker.compat.tools import FORMS, ToolCallFormat

HERMES, MISTRAL, LLAMA = FORMS
ONE = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
TWO = ONE + "\n" + ONE.replace("Paris", "Rome")
LATE = '<tool_call>{"arguments": {"city": "Paris"}, "name": "weather"}</tool_call>'
LISTED = (
    '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Paris"}, "id": "a]b"}, {"name": "time", "arguments": {}}]'
)


@dataclass
class Read:
    """What was told: the text, and of each call name, arguments and whether it ended, in the order that they came."""

    text: str
    calls: list[tuple[str, str, bool]]
    order: list[str]


def told_of(form: ToolCallFormat, pieces: Sequence[str]) -> list[ParsedPiece]:
    reader = ToolCallParser(form)
    told = [item for piece in pieces for item in reader.feed(piece)]
    return [*told, *reader.finish()]


def read(form: ToolCallFormat, *pieces: str) -> Read:
    got = Read("", [], [])
    for item in told_of(form, pieces):
        kind = type(item).__name__
        if isinstance(item, str):
            got.text += item
        elif isinstance(item, CallStart):
            got.calls.append((item.name, "", False))
        elif isinstance(item, Arguments):
            name, arguments, over = got.calls[-1]
            assert not over
            got.calls[-1] = (name, arguments + item.text, False)
        else:
            assert isinstance(item, CallEnd)
            assert not got.calls[-1][2]
            got.calls[-1] = (*got.calls[-1][:2], True)
        if got.order[-1:] != [kind]:
            got.order.append(kind)
    return got


def cut(text: str, places: Sequence[int]) -> list[str]:
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize(
    ("form", "text", "shown", "cities"),
    [
        (HERMES, ONE, "", ["Paris"]),
        (HERMES, TWO, "", ["Paris", "Rome"]),
        (HERMES, "I ask. " + ONE, "I ask. ", ["Paris"]),
        (HERMES, ONE + " So.", " So.", ["Paris"]),
        (HERMES, ONE.removesuffix("\n</tool_call>"), "", ["Paris"]),
        (HERMES, ONE.replace("}}", "}"), "", ["Paris"]),
        (HERMES, LATE, "", ["Paris"]),
        (HERMES, "<tool_call>" + ONE, "<tool_call>", ["Paris"]),
        (HERMES, "a < b <tool> c", "a < b <tool> c", []),
        (HERMES, "<tool_call>nonsense</tool_call> so", "<tool_call>nonsense</tool_call> so", []),
        (HERMES, "<tool_call>{nonsense}</tool_call> so", "<tool_call>{nonsense}</tool_call> so", []),
        (HERMES, '<tool_call>{"name": 3, "arguments": {}}', '<tool_call>{"name": 3, "arguments": {}}', []),
        (HERMES, '<tool_call>{"name": "wea', '<tool_call>{"name": "wea', []),
        (MISTRAL, '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}}]', "", ["Paris"]),
        (MISTRAL, '[TOOL_CALLS]{"name": "weather", "arguments": {"city": "Paris"}}', "", ["Paris"]),
        (MISTRAL, "[TOOL_CALLS] none", "[TOOL_CALLS] none", []),
        (LLAMA, '{"name": "weather", "parameters": {"city": "Paris"}}', "", ["Paris"]),
        (LLAMA, '{"name": "weather"}', '{"name": "weather"}', []),
        (LLAMA, "plain words", "plain words", []),
    ],
)
def test_a_text_is_parted_into_words_and_calls(form: ToolCallFormat, text: str, shown: str, cities: list[str]) -> None:
    """Calls are found wherever a text is cut; what is no call stays text, and nothing is lost."""
    for place in range(len(text) + 1):
        got = read(form, text[:place], text[place:])

        assert got.text == shown
        assert [(name, json.loads(given), over) for name, given, over in got.calls] == [
            ("weather", {"city": city}, True) for city in cities
        ]


def test_a_call_is_told_as_it_comes() -> None:
    """The name is told when the arguments begin, the arguments piece by piece, and the end with their last brace."""
    reader = ToolCallParser(HERMES)

    before = reader.feed('<tool_call>\n{"name": "weather", "arguments": ')
    begun, first = reader.feed('{"ci')
    more = [(reader.feed(piece), reader.open) for piece in ('ty": "Pa}ris', '"}', "}\n</tool_call>")]

    assert before == []
    assert isinstance(begun, CallStart)
    assert (begun.name, first) == ("weather", Arguments('{"ci'))
    assert more == [
        ([Arguments('ty": "Pa}ris')], True),
        ([Arguments('"}'), CallEnd()], False),
        ([], False),
    ]


def test_a_list_of_calls_is_told_one_by_one() -> None:
    """Each call of a list is told when it comes, whatever else its object holds."""
    assert read(MISTRAL, *LISTED).calls == [("weather", '{"city": "Paris"}', True), ("time", "{}", True)]


@pytest.mark.parametrize("form", [HERMES, LLAMA])
def test_a_call_that_is_cut_off_has_no_end(form: ToolCallFormat) -> None:
    """Where the text ends within the arguments, what came of them is told, and that the call is open."""
    opening = "" if form.within else form.opening
    reader = ToolCallParser(form)

    told = [*reader.feed(f'{opening}{{"name": "weather", "{form.arguments}": {{"city": "<'), *reader.finish()]

    assert [type(item) for item in told] == [CallStart, Arguments]
    assert told[1] == Arguments('{"city": "<')
    assert reader.called
    assert reader.open


def test_a_mark_ends_arguments_that_are_no_json() -> None:
    """Arguments whose braces do not close end at the mark that ends the call; within a string the mark is text."""
    broken = read(HERMES, *'<tool_call>{"name": "a", "arguments": {"b": [1, 2}</tool_call> so')
    quoted = read(HERMES, *'<tool_call>{"name": "a", "arguments": {"b": "</tool_call>"}}</tool_call> so')

    assert (broken.calls, broken.text) == ([("a", '{"b": [1, 2}', True)], " so")
    assert (quoted.calls, quoted.text) == ([("a", '{"b": "</tool_call>"}', True)], " so")


def test_what_may_become_a_call_is_held_back() -> None:
    """Nothing of a call's beginning is shown before it is clear that it is none."""
    reader = ToolCallParser(HERMES)

    assert reader.feed("Hello <tool") == ["Hello "]
    assert reader.feed("box> there") == ["<toolbox> there"]


def test_calls_have_ids_of_their_own() -> None:
    """Two calls of the same tool can be told apart."""
    ids = [item.id for item in told_of(HERMES, [TWO]) if isinstance(item, CallStart)]

    assert len(set(ids)) == 2


SCRAPS = st.sampled_from(
    [
        *("<tool_call>", "</tool_call>", "<tool_", "</tool", "[TOOL_CALLS]", '{"name"', "[", "]", "{", "}", ","),
        *(
            '"name"',
            '"arguments"',
            '"parameters"',
            ":",
            '"',
            "\\",
            " ",
            "\n",
            "x",
            "é",
            '"a"',
            "{}",
            "1",
            ONE,
            LATE,
            LISTED,
        ),
        *('{"name": "a", "parameters": {"b": "c"}}', '{"name": "a", "arguments": {', '"id": "b"'),
    ]
)
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.sampled_from(['"', "\\", "}", "</tool_call>", "[TOOL_CALLS]"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
PLACES = st.lists(st.integers(0, 2000), max_size=30)


def without_arguments(scrap: str) -> bool:
    return "arguments" not in scrap and "parameters" not in scrap


@given(form=st.sampled_from(FORMS), scraps=st.lists(SCRAPS, max_size=14), places=PLACES)
def test_what_is_told_does_not_depend_on_the_cuts(form: ToolCallFormat, scraps: list[str], places: list[int]) -> None:
    """Any text, whole or in any pieces, is the same words and the same calls in the same order."""
    text = "".join(scraps)
    whole = read(form, text)

    assert read(form, *cut(text, places)) == whole
    assert read(form, *text) == whole


@given(form=st.sampled_from(FORMS), scraps=st.lists(SCRAPS.filter(without_arguments), max_size=14))
def test_without_a_call_a_text_stays_as_it_is(form: ToolCallFormat, scraps: list[str]) -> None:
    """A text that names no arguments, and so contains no call, comes out letter by letter."""
    text = "".join(scraps)
    got = read(form, *text)

    assert (got.text, got.calls) == (text, [])


@given(
    form=st.sampled_from(FORMS),
    calls=st.lists(
        st.tuples(st.sampled_from(["weather", "a.b-c_d"]), st.dictionaries(st.text(max_size=5), VALUES)),
        min_size=1,
        max_size=3,
    ),
    before=st.sampled_from(["", "Let me see. ", "a < b\n"]),
    indent=st.sampled_from([None, 1]),
    places=PLACES,
)
def test_the_calls_that_were_written_are_told(
    form: ToolCallFormat, calls: list[tuple[str, dict[str, object]]], before: str, indent: int | None, places: list[int]
) -> None:
    """What a model writes in the form of its template comes out as it was meant, in any pieces."""
    if form.within:
        calls = calls[:1]
    bodies = [json.dumps({"name": name, form.arguments: given}, indent=indent) for name, given in calls]
    if form.within:
        bodies = [body.replace('{\n "name"', '{"name"', 1) for body in bodies]
    elif form.listed:
        bodies = [f"{form.opening}[{', '.join(bodies)}]"]
    else:
        bodies = [f"{form.opening}\n{body}\n{form.closing}\n" for body in bodies]

    got = read(form, *cut(before + "".join(bodies), places))

    assert got.text == before
    assert [(name, json.loads(given)) for name, given, _ in got.calls] == calls
    assert all(over for _, _, over in got.calls)
