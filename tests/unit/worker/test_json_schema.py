"""JSON schemas as llguidance is given them: bounded, closed; tests/engine looks at what they let through."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.text.json_schema import MAX_CHARS, MAX_NESTING, MAX_NODES, prepared, relaxed

POINT = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}


def ready(schema: dict[str, Any]) -> Any:
    made = json.loads(prepared(schema, strict=False, param="response_format"))
    del made["x-guidance"]
    return made


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "limit"),
    [
        (nested(MAX_NESTING), MAX_NESTING),
        ({"enum": list(range(MAX_NODES))}, MAX_NODES),
        ({"description": "x" * MAX_CHARS}, MAX_CHARS),
    ],
)
def test_a_schema_beyond_the_bounds_is_refused(schema: dict[str, Any], limit: int) -> None:
    """A schema that is too deep, too large or too long is INVALID_REQUEST, and names the field and the limit."""
    with pytest.raises(RbeeError, match=str(limit)) as caught:
        prepared(schema, strict=False, param="response_format")

    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.param == "response_format"
    assert "response_format" in caught.value.message


def test_an_object_that_lists_properties_has_no_others() -> None:
    """Objects are closed wherever they are, unless they say what else they may have."""
    schema = {"$defs": {"p": POINT}, "properties": {"at": {"$ref": "#/$defs/p"}, "any": {"type": "object"}}}

    made = ready(schema)

    assert made["type"] == "object"
    assert made["additionalProperties"] is False
    assert made["$defs"]["p"]["additionalProperties"] is False
    assert "additionalProperties" not in made["properties"]["any"]
    assert ready({**POINT, "additionalProperties": True})["additionalProperties"] is True


def test_what_an_all_of_puts_together_is_closed_around_it() -> None:
    """The parts of an allOf stay open, as each would forbid what others list; the whole has what all list."""
    schema = {"allOf": [{"$ref": "#/$defs/p"}, {"properties": {"y": {"type": "number"}}}], "$defs": {"p": POINT}}

    made = ready(schema)

    assert made["properties"] == {"x": True, "y": True}
    assert made["additionalProperties"] is False
    assert "additionalProperties" not in made["$defs"]["p"]
    assert "additionalProperties" not in made["allOf"][1]


def test_a_type_that_is_missing_is_the_one_that_is_spoken_of() -> None:
    """A schema without a type gets that of its keywords; one that says nothing stays open."""
    assert ready({"items": {"type": "string"}})["type"] == "array"
    assert ready({"maxLength": 3})["type"] == "string"
    assert ready({}) == {}


def test_only_schemas_are_changed() -> None:
    """Values that look like schemas (an enum, a constant, a property named like a keyword) stay as they are."""
    assert ready({"const": {"properties": {"a": 1}}}) == {"const": {"properties": {"a": 1}}}
    made = json.loads(relaxed({"properties": {"pattern": {"type": "string", "pattern": "a"}}}))
    assert made["properties"] == {"pattern": {"type": "string"}}


def test_what_a_client_says_to_the_library_is_not_passed_on() -> None:
    """The options of llguidance are ours; those within a client's schema are replaced."""
    made = json.loads(prepared({"x-guidance": {"lenient": True}}, strict=True, param="response_format"))

    assert made["x-guidance"]["lenient"] is False


def test_a_doubling_schema_takes_no_time() -> None:
    """Each schema is looked at once, however often others refer to it."""
    levels: dict[str, Any] = {
        f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}, {"$ref": f"#/$defs/d{level + 1}"}]}
        for level in range(40)
    }

    made = ready({"allOf": [{"$ref": "#/$defs/d0"}], "$defs": {**levels, "d40": POINT}})

    assert made["properties"] == {"x": True}


def test_names_that_may_be_any_are_left_out() -> None:
    """What zod says of the names of every record restricts nothing; other names, and a property called so, stay."""
    record = {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {}}

    assert "propertyNames" not in ready(record)
    assert ready({**record, "propertyNames": {"pattern": "^a"}})["propertyNames"] != {}
    assert "propertyNames" in ready({"type": "object", "properties": record | {"type": {}}})["properties"]
