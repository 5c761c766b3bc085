"""What the grammars of schemas and calls let through, with llguidance itself as the judge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from rbee.errors import RbeeError
from rbee.worker.chat import library
from rbee.worker.chat.demands import answer_demanded, calls_demanded, calls_held
from rbee.worker.chat.forms import AnswerForm
from rbee.worker.chat.grammar import Marks
from rbee.worker.chat.rendering import Chat
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
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
HERMES = "NousResearch-Hermes-3-Llama-3.1-8B-tool_use"
LISTED = "mistralai-Mistral-Nemo-Instruct-2407"
THINKING = "Qwen-Qwen3-0.6B"
NO_MARKS = Marks((), {})


class Judge:
    """Tell whether a constraint lets a text through, whole."""

    def __init__(self, llama: Llama, model: Any) -> None:
        self._lib = llama.lib
        self._vocab = llama.lib.llama_model_get_vocab(model)
        self._vocabulary = Vocabulary(self._lib, self._vocab, self._lib.llama_vocab_n_tokens(self._vocab))

    def lets_through(self, constraint: Constraint, text: str) -> bool:
        state = self._vocabulary.compile(handle(json.loads(json.dumps(constraint.message())))["grammar"]).begin()
        tokens = tokenize(self._lib, self._vocab, text, ends=False, special=False)
        return all(state.accept(token) for token in [*tokens, self._lib.llama_vocab_eos(self._vocab)])


def from_schema(schema: dict[str, Any], *, strict: bool = False) -> Constraint:
    return json_answer(schema, strict=strict)


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


def form_of(template: str, tools: list[dict[str, Any]], **options: Any) -> AnswerForm:
    """Return the form of the answers to a request with tools, of a model whose template llama.cpp ships."""
    package = library.folder()
    assert package is not None
    source = (package / "chat_templates" / f"{template}.jinja").read_text(encoding="utf-8")
    chat = Chat(source, begin="<s>", end="</s>")
    return AnswerForm.model_validate(chat.form({"tools": tools, "tool_choice": "auto", **options}))


def free(template: str, tools: list[dict[str, Any]], *, parallel: bool = True, marks: Marks = NO_MARKS) -> Constraint:
    """Return the constraint of an answer that may call tools."""
    form = form_of(template, tools, parallel_tool_calls=parallel)
    constraint = calls_held(form, tools, marks=marks, single=not parallel)
    assert constraint is not None
    return constraint


@pytest.mark.parametrize("template", [HERMES, "Qwen-Qwen3-0.6B", "meta-llama-Llama-3.1-8B-Instruct"])
def test_a_forced_call_is_a_call(judge: Judge, template: str) -> None:
    """Where a call is asked for, only calls of the named tools pass, several only where that is wished."""
    call = LLAMA_CALL if template.startswith("meta-llama") else HERMES_CALL
    demanded = {
        parallel: calls_demanded(
            form_of(template, [TOOL], tool_choice="required", parallel_tool_calls=parallel),
            [TOOL],
            begun="",
            marks=NO_MARKS,
            single=not parallel,
        )
        for parallel in (False, True)
    }

    assert judge.lets_through(demanded[False], call)
    assert not judge.lets_through(demanded[False], f"{call}\n{call}")
    assert judge.lets_through(demanded[True], f"{call}\n{call}") is not template.startswith("meta-llama")
    assert not judge.lets_through(demanded[True], "I think that the weather is fine.")
    assert not judge.lets_through(demanded[True], call.replace("weather", "time"))


@pytest.mark.parametrize("template", [HERMES, "Qwen3-Coder", "openai-gpt-oss-120b", "Apertus-8B-Instruct"])
@pytest.mark.parametrize(
    "properties",
    [
        {"city": True},
        {"city": {"items": True, "type": "array"}},
        {"city": {"$ref": "#/$defs/none"}},
        {"city": {"enum": []}},
        {"city": None},
        ["city"],
    ],
    ids=str,
)
def test_a_schema_that_the_library_does_not_know_loses_no_call(template: str, properties: Any) -> None:
    """The library fails at schemas, valid or not; calls are read and demanded all the same."""
    parameters = {"type": "object", "properties": properties, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "weather", "description": "x", "parameters": parameters}}

    form = form_of(template, [tool], tool_choice="required", parallel_tool_calls=True)

    assert '"tool-name"' in form.parser
    assert "weather" in calls_demanded(form, [tool], begun="", marks=NO_MARKS, single=False).grammar


HERMES_CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
LISTED_CALL = '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}, "id": "abcdefghi"}]'
LLAMA_CALL = '{"name": "weather", "parameters": {"city": "Paris"}}'


@pytest.mark.parametrize(
    ("template", "text"),
    [
        *((name, "Bees, <b>honey</b> and [wax], ünïcode\n\n{1: 2}") for name in (HERMES, LISTED, THINKING)),
        *((name, "") for name in (HERMES, LISTED, THINKING)),
        (HERMES, HERMES_CALL),
        (HERMES, f"Let me look. {HERMES_CALL}\n{HERMES_CALL}"),
        (HERMES, "<<tool_call <tool_cal <too<tool_cl>"),
        (HERMES, f"<{HERMES_CALL}"),
        (LISTED, LISTED_CALL),
        (LISTED, f"[TOOL[TOOL_{LISTED_CALL}"),
        (THINKING, f"<think>\nHm.\n</think>\n\n{HERMES_CALL}"),
    ],
)
def test_text_is_free_where_no_call_has_begun(judge: Judge, template: str, text: str) -> None:
    """Any text passes, and calls that fit do, after other text."""
    assert judge.lets_through(free(template, [TOOL]), text)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        (HERMES, HERMES_CALL.replace("weather", "time")),
        (HERMES, HERMES_CALL.replace('"Paris"', "3")),
        (HERMES, HERMES_CALL.removesuffix("</tool_call>")),
        (HERMES, f"So {HERMES_CALL.replace('city', 'town')}"),
        (HERMES, "<tool_call>nonsense</tool_call>"),
        (LISTED, LISTED_CALL.replace("weather", "time")),
        (LISTED, f"{LISTED_CALL} and more"),
        (THINKING, f"<think>\nHm.\n</think>\n\n{HERMES_CALL.replace('city', 'town')}"),
    ],
)
def test_a_call_that_has_begun_is_held_to_its_tool(judge: Judge, template: str, text: str) -> None:
    """Once a call has begun only a tool that there is passes, with arguments that fit, and the call must be ended."""
    assert not judge.lets_through(free(template, [TOOL]), text)


def test_a_model_whose_calls_look_like_text_is_not_held() -> None:
    """Where JSON may be an answer as well as a call, only a demand for calls holds the model to them."""
    name = "meta-llama-Llama-3.1-8B-Instruct"

    assert calls_held(form_of(name, [TOOL]), [TOOL], marks=NO_MARKS, single=False) is None


def test_where_one_call_is_wished_the_answer_ends_with_it(judge: Judge) -> None:
    """Without parallel calls nothing follows the first, before which text is free."""
    grammar = free(HERMES, [TOOL], parallel=False)

    assert judge.lets_through(grammar, f"So: {HERMES_CALL}")
    assert not judge.lets_through(grammar, f"{HERMES_CALL}\n{HERMES_CALL}")


def test_a_tool_without_a_grammar_takes_any_object(judge: Judge) -> None:
    """A schema that cannot be a grammar holds no other tool up, and its own calls are still whole."""
    broken = {"type": "object", "properties": {"at": {"type": "bee"}}}
    time = {"type": "function", "function": {"name": "time", "parameters": broken}}
    grammar = free(HERMES, [TOOL, time], parallel=False)

    assert judge.lets_through(grammar, HERMES_CALL.replace("weather", "time").replace("city", "anything"))
    assert not judge.lets_through(grammar, HERMES_CALL.replace("city", "anything"))


def test_a_strict_tool_that_cannot_be_held_is_refused(judge: Judge) -> None:
    """Where a tool is to be held to its schema whole, a keyword that cannot be is an error, also in a free answer."""
    strict = {"name": "time", "strict": True, "parameters": {"type": "object", "not": {"required": ["at"]}}}

    with pytest.raises(RbeeError, match="not"):
        judge.lets_through(free(HERMES, [TOOL, {"type": "function", "function": strict}]), "Hello.")


@pytest.mark.parametrize(
    ("template", "before"),
    [
        (HERMES, ""),
        (THINKING, "<think>\nHm, what is { here?\n</think>\n\n"),
        ("Qwen-QwQ-32B", "So it goes.\n</think>\n\n"),
        ("moonshotai-Kimi-K2", ""),
    ],
)
def test_a_demanded_answer_begins_after_the_thought(judge: Judge, template: str, before: str) -> None:
    """The thought is free; what follows it is JSON of the schema, or a call where there are tools to call."""
    schema = json_answer(BEE, strict=True)
    plain = form_of(template, [], tool_choice="none")
    calls = form_of(template, [TOOL], tool_choice="required")
    bee = '{"name": "Maja", "kind": "honey"}'

    alone = answer_demanded(plain, schema, begun="", marks=NO_MARKS)
    either = answer_demanded(plain, schema, begun="", marks=NO_MARKS, calls=calls, tools=[TOOL])

    for constraint in (alone, either):
        assert judge.lets_through(constraint, before + bee)
        assert not judge.lets_through(constraint, before + bee.replace("honey", "wasp"))
        assert not judge.lets_through(constraint, f"{before}A bee is {bee}")
    if template in (HERMES, THINKING):
        assert judge.lets_through(either, before + HERMES_CALL)
        assert not judge.lets_through(alone, before + HERMES_CALL)


def test_a_grammar_of_a_client_begins_after_the_thought_too(judge: Judge) -> None:
    """A model that thinks does so before it answers in the client's grammar."""
    grammar = gbnf('root ::= "bee" ("s" | number)\nnumber ::= " " [0-9]{1,2}')
    constraint = answer_demanded(form_of("Qwen-QwQ-32B", [], tool_choice="none"), grammar, begun="", marks=NO_MARKS)

    assert judge.lets_through(constraint, "I think so.\n</think>\n\nbee 42")
    assert not judge.lets_through(constraint, "I think so.\n</think>\n\nbee 421")


def test_an_answer_that_goes_on_with_a_message_is_not_held_to_a_call() -> None:
    """What the assistant has begun is no call: the refusal says so, and what to do instead."""
    form = form_of(THINKING, [TOOL], tool_choice="required")

    with pytest.raises(RbeeError, match="goes on with a message") as caught:
        calls_demanded(form, [TOOL], begun="<|im_start|>assistant\nSo", marks=NO_MARKS, single=False)

    assert caught.value.param == "tool_choice"
    assert "continue_final_message" in caught.value.hint


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
    grammar = free(HERMES, [TOOL], marks=Marks(("<tool_call>", "</tool_call>"), {"<tool_call>": token}))

    state = judge._vocabulary.compile(handle(grammar.message())["grammar"]).begin()
    rest = tokenize(judge._lib, judge._vocab, HERMES_CALL.removeprefix("<tool_call>"), ends=False, special=False)
    assert all(state.accept(one) for one in [token, *rest])
    assert judge.lets_through(grammar, HERMES_CALL)
