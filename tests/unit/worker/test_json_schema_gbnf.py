"""Grammars out of JSON schemas: what cannot be one is refused; tests/engine looks at what they let through."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.text.json_schema_gbnf import MAX_DEPTH, MAX_SCHEMA_CHARS, from_schema

NODE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}
PAIR = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/point"}, "b": {"$ref": "#/$defs/point"}},
    "$defs": {"point": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
}


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"$ref": "#"}, "itself"),
        ({"$ref": "#/$defs/node", "$defs": {"node": NODE}}, "#/$defs/node -> #/$defs/node"),
        ({"allOf": [{"$ref": "#/$defs/node"}], "$defs": {"node": {"allOf": [{"$ref": "#/$defs/node"}]}}}, "itself"),
        ({"$ref": "#/$defs/lost"}, "there is no #/$defs/lost"),
        ({"$ref": "https://example.test/schema.json"}, "there is no https"),
        ({"type": "bee"}, "'bee'"),
        ({"type": "object", "properties": {}, "required": ["wings"]}, "'wings'"),
        ({"enum": []}, "empty"),
        ({"anyOf": []}, "alternatives"),
        ({"type": "array", "items": {}, "minItems": -1}, "minItems"),
        ({"type": "array", "items": {}, "minItems": 2, "maxItems": 1}, "maxItems"),
        ({"type": "array", "items": {}, "minItems": 10**9}, "more than"),
        ({"properties": {"a": 3}}, "not a schema"),
        (nested(MAX_DEPTH + 1), "deep"),
        ({"description": "x" * MAX_SCHEMA_CHARS}, "characters"),
    ],
)
def test_a_schema_without_a_grammar_is_refused(schema: dict[str, Any], reason: str) -> None:
    """A schema that refers to itself, is broken or is a bomb is INVALID_REQUEST, and says what is wrong with it."""
    with pytest.raises(RbeeError) as caught:
        from_schema(schema)

    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert reason in caught.value.message
    assert caught.value.param == "response_format"


def test_a_part_that_is_used_twice_refers_to_nothing_of_its_own() -> None:
    """One definition may be used in several places: that is no circle, and is written once."""
    assert from_schema(PAIR).count('"\\"x\\""') == 1


@pytest.mark.parametrize("limit", [{"pattern": "^a"}, {"maxLength": 10**6}])
def test_what_no_grammar_holds_is_refused_only_where_it_must_hold(limit: dict[str, Any]) -> None:
    """Strictly asked for, a limit that a grammar cannot hold is refused; else it is left to the model."""
    schema = {"type": "string", **limit}

    with pytest.raises(RbeeError, match=next(iter(limit))):
        from_schema(schema, strict=True)
    assert from_schema(schema) == from_schema({"type": "string"})
