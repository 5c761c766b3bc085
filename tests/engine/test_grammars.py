"""What the grammars of schemas and calls let through, with llguidance itself as the judge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from rbee.errors import RbeeError
from rbee.worker.compat.tool_call_grammar import call_grammar, free_grammar
from rbee.worker.compat.tools import FORMS
from rbee.worker.engine.guidance import Vocabulary, handle
from rbee.worker.engine.llama import Llama
from rbee.worker.engine.llama_text import tokenize
from rbee.worker.text.constraint import Constraint, gbnf, json_answer
from tests.support.models import smollm2_path

pytestmark = pytest.mark.engine

BEE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "legs": {"type": "integer"},
        "kind": {"enum": ["honey", 'a "b"', "über\\"]},
        "friends": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
    },
    "required": ["name", "kind"],
    "additionalProperties": False,
}
OPEN = {"type": "object", "properties": {"a": {"type": "boolean"}}, "additionalProperties": {"type": "null"}}
MERGED = {
    "allOf": [{"$ref": "#/$defs/a"}, {"properties": {"b": {"const": 1}}, "required": ["b"]}],
    "$defs": {"a": {"properties": {"a": {"type": ["number", "null"]}}, "required": ["a"]}},
}
TOOL = {"function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}


class Judge:
    """Tell whether a constraint lets a text through, whole."""

    def __init__(self, llama: Llama, model: Any) -> None:
        self._lib = llama.lib
        self._vocab = llama.lib.llama_model_get_vocab(model)
        self._vocabulary = Vocabulary(self._lib, self._vocab, self._lib.llama_vocab_n_tokens(self._vocab))

    def lets_through(self, constraint: Constraint, text: str) -> bool:
        state = self._vocabulary.compile(handle(json.loads(json.dumps(constraint.message())))).begin()
        tokens = tokenize(self._lib, self._vocab, text, ends=False, special=False)
        return all(state.accept(token) for token in [*tokens, self._lib.llama_vocab_eos(self._vocab)])


def from_schema(schema: dict[str, Any], *, strict: bool = False) -> Constraint:
    return json_answer(schema, strict=strict)


def no_token(_text: str) -> None:
    """The vocabulary of the model has no token for the marks of calls."""


@pytest.fixture(scope="module", name="judge")
def _judge() -> Iterator[Judge]:
    llama = Llama()
    params = llama.lib.llama_model_default_params()
    params.vocab_only = True
    model = llama.lib.llama_model_load_from_file(str(smollm2_path()).encode(), params)
    yield Judge(llama, model)
    llama.lib.llama_model_free(model)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (BEE, {"name": "Maja", "kind": "honey"}),
        (BEE, {"name": "Maja", "legs": -6, "kind": 'a "b"', "friends": ["Willi"]}),
        (BEE, {"name": "M\\\n", "kind": "über\\", "friends": ["a", "b"]}),
        (OPEN, {}),
        (OPEN, {"a": True}),
        (OPEN, {"x": None, "y": None}),
        (OPEN, {"a": False, "x": None}),
        (MERGED, {"a": 1.5e3, "b": 1}),
        (MERGED, {"a": None, "b": 1}),
        ({}, [1, {"a": [True, "x", None]}]),
        ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]}, ["a", 1]),
        ({"type": "object"}, {"any": {"thing": [1]}}),
    ],
)
def test_what_fits_the_schema_passes(judge: Judge, schema: dict[str, Any], value: Any) -> None:
    """JSON that fits the schema is let through."""
    assert judge.lets_through(from_schema(schema), json.dumps(value, ensure_ascii=False))


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (BEE, '{"name": "Maja"}'),
        (BEE, '{"kind": "honey", "name": "Maja"}'),
        (BEE, '{"name": "Maja the Bee", "kind": "honey"}'),
        (BEE, '{"name": "Maja", "kind": "wasp"}'),
        (BEE, '{"name": "Maja", "kind": "honey", "friends": []}'),
        (BEE, '{"name": "Maja", "kind": "honey", "friends": ["a", "b", "c"]}'),
        (BEE, '{"name": "Maja", "kind": "honey", "more": 1}'),
        (BEE, '{"name": "Maja", "legs": 6.5, "kind": "honey"}'),
        (BEE, '{"name": "Maja", "kind": "honey"} and more'),
        (OPEN, '{"x": 1}'),
        (MERGED, '{"a": 1}'),
        ({"type": "string"}, '"a\nb"'),
        ({"type": "integer"}, "007"),
    ],
)
def test_what_does_not_fit_is_stopped(judge: Judge, schema: dict[str, Any], text: str) -> None:
    """Text that is no JSON, or JSON that does not fit the schema, is not let through."""
    assert not judge.lets_through(from_schema(schema), text)


def test_any_object_is_an_object(judge: Judge) -> None:
    """The grammar of JSON objects lets objects through and nothing else."""
    assert judge.lets_through(json_answer(None, strict=False), '{"a": [1, "b", {}]}')
    assert not judge.lets_through(json_answer(None, strict=False), "[1]")


def test_a_forced_call_is_a_call(judge: Judge) -> None:
    """Where a call is asked for, only calls of the named tools pass, several only where that is wished."""
    hermes = FORMS[0]
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'

    one = call_grammar(hermes, [TOOL], parallel=False, special_token=no_token)
    more = call_grammar(hermes, [TOOL], parallel=True, special_token=no_token)

    assert judge.lets_through(one, call)
    assert not judge.lets_through(one, f"{call}\n{call}")
    assert judge.lets_through(more, f"{call}\n{call}")
    assert not judge.lets_through(more, "I think that the weather is fine.")
    assert not judge.lets_through(more, call.replace("weather", "time"))


HERMES_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
LISTED_CALL = '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Paris"}}]'
LLAMA_CALL = '{"name": "weather", "parameters": {"city": "Paris"}}'


@pytest.mark.parametrize(
    ("form", "text"),
    [
        *((form, "Bees, <b>honey</b> and [wax], ünïcode\n\n{1: 2}") for form in FORMS),
        *((form, "") for form in FORMS),
        (0, HERMES_CALL),
        (0, f"Let me look. {HERMES_CALL}\n{HERMES_CALL} Done <tool"),
        (0, "<<tool_call <tool_cal <too<tool_cl>"),
        (0, '<<tool_call>{"name": "weather", "arguments": {}}</tool_call>'),
        (1, LISTED_CALL),
        (1, f"[TOOL[TOOL_{LISTED_CALL}"),
        (2, LLAMA_CALL),
        (2, f" \n{LLAMA_CALL}"),
        (2, '{"name": "Maja", "parameters": 3} is what you asked for'),
        (2, f"Once more: {LLAMA_CALL} was it"),
    ],
)
def test_text_is_free_where_no_call_has_begun(judge: Judge, form: Any, text: str) -> None:
    """Any text passes, and calls that fit do, before and after other text."""
    form = FORMS[form] if isinstance(form, int) else form
    grammar = free_grammar(form, [TOOL], parallel=True, special_token=no_token)

    assert grammar is not None
    assert judge.lets_through(grammar, text)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (0, HERMES_CALL.replace("weather", "time")),
        (0, HERMES_CALL.replace('"Paris"', "3")),
        (0, HERMES_CALL.removesuffix("</tool_call>")),
        (0, f"So {HERMES_CALL.replace('city', 'town')}"),
        (0, "<tool_call>nonsense</tool_call>"),
        (1, LISTED_CALL.replace("weather", "time")),
        (1, f"{LISTED_CALL} and more"),
        (2, LLAMA_CALL.replace('"Paris"', "3")),
        (2, f"{LLAMA_CALL} and more"),
    ],
)
def test_a_call_that_has_begun_is_held_to_its_tool(judge: Judge, form: int, text: str) -> None:
    """Once a call has begun only a tool that there is passes, with arguments that fit, and the call must be ended."""
    grammar = free_grammar(FORMS[form], [TOOL], parallel=True, special_token=no_token)

    assert grammar is not None
    assert not judge.lets_through(grammar, text)


def test_where_one_call_is_wished_the_answer_ends_with_it(judge: Judge) -> None:
    """Without parallel calls nothing follows the first, before which text is free."""
    grammar = free_grammar(FORMS[0], [TOOL], parallel=False, special_token=no_token)

    assert grammar is not None
    assert judge.lets_through(grammar, f"So: {HERMES_CALL}")
    assert not judge.lets_through(grammar, f"{HERMES_CALL}\n{HERMES_CALL}")


def test_a_tool_without_a_grammar_takes_any_object(judge: Judge) -> None:
    """A schema that cannot be a grammar holds no other tool up, and its own calls are still whole."""
    broken = {"type": "object", "properties": {"at": {"type": "bee"}}}
    time = {"function": {"name": "time", "parameters": broken}}
    grammar = free_grammar(FORMS[0], [TOOL, time], parallel=False, special_token=no_token)

    assert grammar is not None
    assert judge.lets_through(grammar, HERMES_CALL.replace("weather", "time").replace("city", "anything"))
    assert not judge.lets_through(grammar, HERMES_CALL.replace("city", "anything"))


LIST: dict[str, Any] = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"value": {"type": "integer", "minimum": 1}, "next": {"$ref": "#/$defs/node"}},
            "required": ["value"],
        }
    },
}


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        (LIST, '{"value": 1, "next": {"value": 2}}', '{"value": 1, "next": {"value": 0}}'),
        ({"type": "string", "pattern": "^[a-c]+$"}, '"abc"', '"abd"'),
        ({"type": "integer", "minimum": 3, "maximum": 5}, "4", "6"),
        ({"type": "string", "format": "date"}, '"2026-11-28"', '"soon"'),
    ],
)
def test_bounds_patterns_formats_and_recursion_are_held(
    judge: Judge, schema: dict[str, Any], right: str, wrong: str
) -> None:
    """What a schema says of values is held, strictly asked for or not, and so is one that refers to itself."""
    for strict in (True, False):
        assert judge.lets_through(from_schema(schema, strict=strict), right)
        assert not judge.lets_through(from_schema(schema, strict=strict), wrong)


def test_what_cannot_be_held_is_left_to_the_model_unless_strictly_asked_for(judge: Judge) -> None:
    """A key that no grammar holds is named where it must hold, and else left out, alone."""
    schema = {"type": "string", "pattern": "^(?=a).*$", "maxLength": 3}

    with pytest.raises(RbeeError, match="look-ahead"):
        judge.lets_through(from_schema(schema, strict=True), '"b"')
    assert judge.lets_through(from_schema(schema), '"b"')
    assert not judge.lets_through(from_schema(schema), '"more"')


def test_a_doubling_schema_is_an_ordinary_one(judge: Judge) -> None:
    """A schema that doubles at each of 40 levels is compiled like any other, and holds what it says."""
    levels: dict[str, Any] = {
        f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}, {"$ref": f"#/$defs/d{level + 1}"}]}
        for level in range(40)
    }
    levels["d40"] = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    schema = {"allOf": [{"$ref": "#/$defs/d0"}], "$defs": levels}

    assert judge.lets_through(from_schema(schema), '{"a": true}')
    assert not judge.lets_through(from_schema(schema), '{"a": true, "b": 1}')


def test_a_grammar_of_a_client_is_held(judge: Judge) -> None:
    """A grammar in llama.cpp's form lets through what it describes."""
    grammar = gbnf('root ::= "bee" ("s" | number)\nnumber ::= " " [0-9]{1,2}')

    assert judge.lets_through(grammar, "bees")
    assert judge.lets_through(grammar, "bee 42")
    assert not judge.lets_through(grammar, "bee 421")


def test_a_mark_that_is_a_token_may_be_written_as_one(judge: Judge) -> None:
    """Where the vocabulary has the mark of calls as a token, the token begins a call as its letters do."""
    token = 5
    grammar = free_grammar(FORMS[0], [TOOL], parallel=True, special_token={FORMS[0].opening: token}.get)

    assert grammar is not None
    state = judge._vocabulary.compile(handle(grammar.message())).begin()
    rest = tokenize(judge._lib, judge._vocab, HERMES_CALL.removeprefix("<tool_call>"), ends=False, special=False)
    assert all(state.accept(one) for one in [token, *rest])
    assert judge.lets_through(grammar, HERMES_CALL)
