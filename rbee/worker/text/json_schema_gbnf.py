"""Write the grammar (GBNF) of the JSON that fits a schema. Pure.

What a grammar cannot hold (a pattern, a minimum) is refused where it was asked for strictly, else left to the model.
Objects have their properties in the schema's order, and others only where `additionalProperties` allows them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

Schema = Mapping[str, Any]

MAX_DEPTH: Final = 48
MAX_SCHEMA_CHARS: Final = 100_000
MAX_REPEATS: Final = 1000  # llama.cpp writes a repetition out
_BEYOND: Final = (
    *("pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "uniqueItems", "not"),
    *("patternProperties", "propertyNames", "minProperties", "maxProperties", "if", "then", "else", "contains"),
    *("dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties"),
)
_BASE_RULES: Final = {
    "ws": '" "?',
    "char": r"""[^"\\\x7F\x00-\x1F] | [\\] (["\\bfnrt/] | "u" [0-9a-fA-F]{4})""",
    "string": r'"\"" char* "\"" ws',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,15}) ws',
    "number": '"-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,3})? ws',
    "boolean": '("true" | "false") ws',
    "null": '"null" ws',
    "value": "object | array | string | number | boolean | null",
    "object": '"{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}" ws',
    "array": '"[" ws (value ("," ws value)*)? "]" ws',
}


def any_object() -> str:
    """Return the grammar of any JSON object."""
    return _text({"root": "object"})


def from_schema(schema: Schema, *, strict: bool = False, param: str = "response_format") -> str:
    """Return the grammar of a schema. Raises RbeeError INVALID_REQUEST for one that has none."""
    return _text(rules_of_schema(schema, strict=strict, param=param))


def rules_of_schema(schema: Schema, *, strict: bool, param: str, root: str = "root") -> dict[str, str]:
    """Return the rules of a schema, whose first is *root*, as parts of a larger grammar."""
    if len(json.dumps(schema)) > MAX_SCHEMA_CHARS:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST, f"The schema has more than {MAX_SCHEMA_CHARS} characters.", param=param
        )
    writer = _GbnfWriter(schema, strict=strict, param=param, prefix=root)
    body = writer.visit(schema, root, 0)
    return {root: body, **writer.rules}


def literal(text: str) -> str:
    """Return the rule for exactly this text."""
    marks = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(marks.get(char, char) for char in text) + '"'


def together(rules: Mapping[str, str]) -> str:
    """Return the text of a grammar made of *rules*, with the ground that they stand on."""
    return _text(rules)


def _text(rules: Mapping[str, str]) -> str:
    return "\n".join(f"{name} ::= {body}" for name, body in {**rules, **_BASE_RULES}.items())


class _GbnfWriter:
    def __init__(self, root: Schema, *, strict: bool, param: str, prefix: str) -> None:
        self.rules: dict[str, str] = {}
        self._root = root
        self._strict = strict
        self._param = param
        self._prefix = prefix
        self._names: dict[str, str] = {}  # of bodies
        self._of_ref: dict[str, str] = {}
        self._active: list[str] = []

    def visit(self, schema: object, where: str, depth: int) -> str:
        """Return the body of the rule for *schema*."""
        if schema is True or schema == {}:
            return "value"
        if not isinstance(schema, Mapping):
            raise self._fault(f"{where} is not a schema")
        if depth > MAX_DEPTH:
            raise self._fault(f"it is nested more than {MAX_DEPTH} deep")
        self._check_keywords(schema, where)
        if "$ref" in schema:
            return self._reference(str(schema["$ref"]), depth)
        if "const" in schema:
            return literal(json.dumps(schema["const"], ensure_ascii=False)) + " ws"
        if "enum" in schema:
            return self._enum(schema["enum"], where)
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return self._union(schema[key], where, depth)
        if "allOf" in schema:
            return self.visit(self._merged(schema, where), where, depth + 1)
        return self._typed(schema, where, depth)

    def _typed(self, schema: Schema, where: str, depth: int) -> str:
        kind = schema.get("type") or _guessed(schema)
        if isinstance(kind, list):
            return self._union([{**schema, "type": one} for one in kind], where, depth)
        if kind is None:
            return "value"
        if kind == "object":
            return self._object(schema, where, depth)
        if kind == "array":
            return self._array(schema, where, depth)
        if kind == "string":
            return self._string(schema)
        if kind in ("integer", "number", "boolean", "null"):
            return str(kind)
        raise self._fault(f"{where} has the type {kind!r}, which is none of JSON's")

    def _object(self, schema: Schema, where: str, depth: int) -> str:
        properties = schema.get("properties") or {}
        more = schema.get("additionalProperties", not properties)
        if not isinstance(properties, Mapping):
            raise self._fault(f"the properties of {where} are no object")
        required = set(schema.get("required") or ())
        if missing := sorted(required - set(properties)):
            raise self._fault(f"{where} requires {missing[0]!r}, which is none of its properties")
        pairs = [
            (
                f'{literal(json.dumps(name, ensure_ascii=False))} ws ":" ws '
                + self._named(f"{where}-{number}", self.visit(inner, f"{where}.{name}", depth + 1)),
                name in required,
            )
            for number, (name, inner) in enumerate(properties.items())
        ]
        extra = None
        if more is not False:
            extra = 'string ":" ws ' + self._named(f"{where}-more", self.visit(more, f"{where}.*", depth + 1))
        return f'"{{" ws {self._members(pairs, extra, where)} "}}" ws'

    def _members(self, pairs: Sequence[tuple[str, bool]], extra: str | None, where: str) -> str:
        """Return the rule between the braces; where a member may be left out, so may its comma."""
        after = "" if extra is None else f'("," ws {extra})*'
        first = "" if extra is None else f'({extra} ("," ws {extra})*)?'
        for number, (pair, needed) in reversed(list(enumerate(pairs))):
            rest = f" {self._named(f'{where}-rest{number}', after)}" if after else ""
            first = f"{pair}{rest}" if needed else f"({pair}{rest} | {first})" if first else f"({pair}{rest})?"
            after = f'"," ws {pair}{rest}' if needed else f'("," ws {pair})?{rest}'
        return first

    def _array(self, schema: Schema, where: str, depth: int) -> str:
        if "prefixItems" in schema:
            items = [
                self._named(f"{where}-t{number}", self.visit(item, f"{where}[{number}]", depth + 1))
                for number, item in enumerate(schema["prefixItems"])
            ]
            between = ' "," ws '
            return f'"[" ws {between.join(items)} "]" ws'
        item = self._named(f"{where}-item", self.visit(schema.get("items", True), f"{where}[]", depth + 1))
        least, most = self._bounds(schema, "minItems", "maxItems")
        if most == 0:
            return '"[" ws "]" ws'
        upper = "" if most is None else str(most - 1)
        some = f'{item} ("," ws {item}){{{max(0, least - 1)},{upper}}}'
        return f'"[" ws {some if least else f"({some})?"} "]" ws'

    def _string(self, schema: Schema) -> str:
        least, most = self._bounds(schema, "minLength", "maxLength")
        if not least and most is None:
            return "string"
        return rf'"\"" char{{{least},{"" if most is None else most}}} "\"" ws'

    def _bounds(self, schema: Schema, low: str, high: str) -> tuple[int, int | None]:
        least, most = schema.get(low, 0), schema.get(high)
        for name, value in ((low, least), (high, most)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
                raise self._fault(f"{name} is {value!r}")
        if most is not None and most < least:
            raise self._fault(f"{high} is less than {low}")
        if least > MAX_REPEATS:
            raise self._fault(f"{low} is more than {MAX_REPEATS}")
        if most is not None and most > MAX_REPEATS:
            self._too_much(f"a {high} of more than {MAX_REPEATS}")
            most = None
        return least, most

    def _enum(self, values: object, where: str) -> str:
        if not isinstance(values, list) or not values:
            raise self._fault(f"the enum of {where} is empty")
        return "(" + " | ".join(literal(json.dumps(value, ensure_ascii=False)) for value in values) + ") ws"

    def _union(self, schemas: object, where: str, depth: int) -> str:
        if not isinstance(schemas, list) or not schemas:
            raise self._fault(f"{where} has no alternatives")
        return " | ".join(
            self._named(f"{where}-or{number}", self.visit(schema, f"{where}|{number}", depth + 1))
            for number, schema in enumerate(schemas)
        )

    def _reference(self, ref: str, depth: int) -> str:
        if ref in self._active:
            raise self._fault(f"it refers to itself: {' -> '.join([*self._active, ref])}")
        if ref not in self._of_ref:
            target = self._target(ref)
            self._active.append(ref)
            self._of_ref[ref] = self._named(f"ref-{len(self._of_ref)}", self.visit(target, ref, depth + 1))
            self._active.pop()
        return self._of_ref[ref]

    def _target(self, ref: str) -> Any:
        if ref == "#":
            raise self._fault("it refers to itself: #")
        target: Any = self._root
        for part in ref.removeprefix("#/").split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            if not ref.startswith("#/") or not isinstance(target, Mapping) or key not in target:
                raise self._fault(f"there is no {ref} in it")
            target = target[key]
        return target

    def _merged(self, schema: Schema, where: str) -> Schema:
        """Put the parts of an allOf together: what all of them say of an object's properties."""
        merged: dict[str, Any] = {}
        for part in self._parts(schema, where, ()):
            properties = {**merged.get("properties", {}), **part.get("properties", {})}
            required = [*merged.get("required", ()), *part.get("required", ())]
            merged |= part
            if properties:
                merged |= {"properties": properties, "required": required}
        return merged

    def _parts(self, schema: object, where: str, seen: tuple[str, ...]) -> list[Schema]:
        if not isinstance(schema, Mapping):
            raise self._fault(f"a part of {where} is not a schema")
        if "$ref" in schema:
            ref = str(schema["$ref"])
            if ref in self._active or ref in seen:
                raise self._fault(f"it refers to itself: {' -> '.join([*self._active, *seen, ref])}")
            return self._parts(self._target(ref), where, (*seen, ref))
        own = {key: value for key, value in schema.items() if key != "allOf"}
        return [own, *(part for inner in schema.get("allOf", ()) for part in self._parts(inner, where, seen))]

    def _named(self, hint: str, body: str) -> str:
        """Return the rule name of a body, new if needed."""
        if body.replace("-", "").isalnum():
            return body
        if body in self._names:
            return self._names[body]
        kind = "".join(char for char in hint.rpartition("-")[2] if char.isascii() and char.isalnum())
        name = f"{self._prefix}-{len(self.rules)}-{kind}"
        self.rules[name] = body
        self._names[body] = name
        return name

    def _check_keywords(self, schema: Schema, where: str) -> None:
        for keyword in _BEYOND:
            if keyword in schema:
                self._too_much(f"'{keyword}' (at {where})")

    def _too_much(self, what: str) -> None:
        if self._strict:
            raise self._fault(f"{what} cannot be expressed as a grammar; omit it, or unset 'strict'")

    def _fault(self, reason: str) -> RbeeError:
        return RbeeError(ErrorCode.INVALID_REQUEST, f"The schema is not supported: {reason}.", param=self._param)


def _guessed(schema: Schema) -> str | None:
    """Infer the type of a schema that states none."""
    signs: dict[str, Callable[[Schema], bool]] = {
        "object": lambda one: "properties" in one or isinstance(one.get("additionalProperties"), Mapping),
        "array": lambda one: "items" in one or "prefixItems" in one,
        "string": lambda one: "minLength" in one or "maxLength" in one,
    }
    return next((kind for kind, fits in signs.items() if fits(schema)), None)
