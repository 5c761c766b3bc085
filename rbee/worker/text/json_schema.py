"""Bound a client's JSON schema and put it into the form that llguidance is given. Pure.

What a schema leaves open is closed as a model needs it: an object that lists properties has no others unless it says
so, and a type that is missing is the one that the other keywords speak of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

Schema = Mapping[str, Any]

MAX_CHARS: Final = 256 * 1024
MAX_NESTING: Final = 64
MAX_NODES: Final = 10_000
# Keywords that no text of a fixed alphabet may be enough for; what is left without them can always be held.
_BEYOND: Final = frozenset(
    (
        *("pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "not"),
        *("uniqueItems", "patternProperties", "propertyNames", "minProperties", "maxProperties", "if", "then", "else"),
        *("contains", "dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties"),
    )
)
_ANY_NAMES: Final = ("propertyNames", {"type": "string"})  # restricts nothing, and is in every record of zod's
_ONE: Final = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_STATED: Final = ("type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const")
_OPEN: Final = ("additionalProperties", "unevaluatedProperties", "patternProperties", "anyOf", "oneOf", "if")
_SIGNS: Final = {
    "object": ("properties", "additionalProperties", "required", "patternProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("pattern", "minLength", "maxLength", "format"),
}


def any_object() -> str:
    """Return the schema of any JSON object, as `prepared` does."""
    return _text({"type": "object"}, strict=False)


def prepared(schema: Schema, *, strict: bool, param: str) -> str:
    """Return a schema as JSON for llguidance; unless *strict*, keywords that it does not know are left to the model.

    Raises RbeeError INVALID_REQUEST for a schema beyond the bounds.
    """
    check_bounds(schema, param)
    return _text(_Closer(schema).close(schema), strict=strict)


def relaxed(schema: Schema) -> str:
    """Return a schema within the bounds, as `prepared` does, without the keywords that perhaps cannot be held."""
    less = _without(schema, _BEYOND)
    return _text(_Closer(less).close(less), strict=False)


def _text(schema: Schema, *, strict: bool) -> str:
    # A model that may write any white space is apt to write nothing else.
    options = {
        "whitespace_pattern": " ",
        "coerce_one_of": True,
        "lenient": not strict,
        "json_allow_general_unicode_escapes": True,
    }
    return json.dumps({**schema, "x-guidance": options})


def check_bounds(schema: Schema, param: str) -> None:
    """Raise RbeeError INVALID_REQUEST for a schema that is too long, too deep or of too many values."""
    nodes = 0
    level: list[Any] = [schema]
    for _ in range(MAX_NESTING):
        nodes += len(level)
        if nodes > MAX_NODES:
            raise _beyond(f"more than {MAX_NODES} values", param)
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            break
    else:
        raise _beyond(f"more than {MAX_NESTING} levels", param)
    size = len(json.dumps(schema))
    if size > MAX_CHARS:
        raise _beyond(f"{size} characters; the limit is {MAX_CHARS}", param)


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _beyond(what: str, param: str) -> RbeeError:
    return RbeeError(
        ErrorCode.INVALID_REQUEST,
        f"{param}: the schema has {what}.",
        hint="Send a smaller schema, or leave parts of it to the model.",
        param=param,
    )


def _without(schema: Any, keywords: frozenset[str]) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    kept = {key: value for key, value in schema.items() if key not in keywords}
    return {key: _each(key, value, lambda one: _without(one, keywords)) for key, value in kept.items()}


def _schemas_of(key: str, value: Any) -> list[Any]:
    """Return the schemas that the value of a keyword holds."""
    found: list[Any] = []
    _each(key, value, found.append)
    return found


def _each(key: str, value: Any, change: Callable[[Any], Any]) -> Any:
    """Return the value of a keyword with *change* applied to the schemas that it holds."""
    if key in _ONE:
        return change(value)
    if key in _LISTS and isinstance(value, list):
        return [change(one) for one in value]
    if key in _NAMED and isinstance(value, Mapping):
        return {name: change(one) for name, one in value.items()}
    return value


class _Closer:
    """Close the objects of one schema. What an allOf puts together is closed around it, not in its parts."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._parts: set[int] = set()  # the ids of schemas that are parts of an allOf
        self._find_parts(root)

    def close(self, schema: Any) -> Any:
        """Return *schema* with its objects closed."""
        if not isinstance(schema, Mapping):
            return schema
        stated = {key: value for key, value in schema.items() if (key, value) != _ANY_NAMES}
        closed = {key: _each(key, value, self.close) for key, value in stated.items()}
        if not any(key in schema for key in _STATED):
            kind = next((kind for kind, signs in _SIGNS.items() if any(sign in schema for sign in signs)), None)
            if kind is not None:
                closed["type"] = kind
        if id(schema) not in self._parts and not any(key in schema for key in ("$ref", "enum", "const")):
            names = self._names(schema, set())
            if names:
                own = closed.get("properties", {})
                closed["properties"] = {name: own.get(name, True) for name in names}
                closed["additionalProperties"] = False
        return closed

    def _names(self, schema: Any, seen: set[int]) -> list[str] | None:
        """Return the properties that a schema and the parts of its allOf list; None where it says what others are."""
        if id(schema) in seen:
            return []
        seen.add(id(schema))
        if not isinstance(schema, Mapping) or any(key in schema for key in _OPEN):
            return None
        if "$ref" in schema:
            return self._names(self._target(schema["$ref"]), seen)
        properties = schema.get("properties", {})
        names = list(properties) if isinstance(properties, Mapping) else []
        for part in _listed(schema, "allOf"):
            inner = self._names(part, seen)
            if inner is None:
                return None
            names += inner
        return list(dict.fromkeys(names))

    def _find_parts(self, schema: Any) -> None:
        """Note every schema that is part of an allOf, wherever that is."""
        waiting: list[tuple[Any, bool]] = [(schema, False)]
        seen: set[tuple[int, bool]] = set()
        while waiting:
            value, is_part = waiting.pop()
            if not isinstance(value, Mapping) or (id(value), is_part) in seen:
                continue
            seen.add((id(value), is_part))
            if is_part:
                self._parts.add(id(value))
                if "$ref" in value:
                    waiting.append((self._target(value["$ref"]), True))
            waiting += [(part, True) for part in _listed(value, "allOf")]
            for key, inner in value.items():
                if key != "allOf":
                    waiting += [(one, False) for one in _schemas_of(key, inner)]

    def _target(self, ref: Any) -> Any:
        """Return what a reference within the schema points to; None for any other."""
        target: Any = self._root
        for part in str(ref).removeprefix("#").split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not str(ref).startswith("#") or not isinstance(target, Mapping) or key not in target:
                return None
            target = target[key]
        return target


def _listed(schema: Schema, key: str) -> list[Any]:
    value = schema.get(key)
    return value if isinstance(value, list) else []
