"""What an answer must match, as a request states it: a grammar, and the JSON schemas that it refers to. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.text.json_schema import Schema, any_object, prepared, relaxed

MAX_CONSTRAINT_CHARS: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SchemaRule:
    """A rule of a grammar that is the JSON of a schema.

    Args:
        name: the name of the rule.
        schemas: as JSON, of which the first that can be held is.
        param: the request's field that the schema came from.
    """

    name: str
    schemas: tuple[str, ...]
    param: str


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an answer must match; equal ones are compiled once.

    Args:
        grammar: its rules, in the form that *language* names; Lark as llguidance reads it.
        rules: further rules, for JSON.
        answer: a grammar in GBNF that is the rule `answer`.
        required: refuse the request if this cannot be held, instead of answering without it.
    """

    grammar: str
    param: str
    language: Literal["lark", "gbnf"] = "lark"
    rules: tuple[SchemaRule, ...] = ()
    answer: str = ""
    required: bool = True

    @property
    def size(self) -> int:
        """Return the number of characters."""
        return len(self.grammar) + len(self.answer) + sum(len(schema) for rule in self.rules for schema in rule.schemas)

    def message(self) -> dict[str, Any]:
        """Return what `engine.guidance` takes to check it, as JSON."""
        return {
            "language": self.language,
            "grammar": self.grammar,
            "answer": self.answer,
            "rules": [{"name": rule.name, "schemas": rule.schemas} for rule in self.rules],
        }


def gbnf(grammar: str) -> Constraint:
    """Return the constraint of a client's own grammar."""
    return Constraint(grammar, "grammar", language="gbnf")


def json_answer(schema: Schema | None, *, strict: bool, param: str = "response_format") -> Constraint:
    """Return the constraint of an answer that is JSON of a schema, or any object.

    Raises RbeeError INVALID_REQUEST for a schema beyond the bounds.
    """
    schemas = (any_object(),) if schema is None else schema_choices(schema, strict=strict, param=param)
    return Constraint("start: answer\n", param, rules=(SchemaRule("answer", schemas, param),))


def schema_choices(schema: Schema, *, strict: bool, param: str) -> tuple[str, ...]:
    """Return a schema as JSON for a rule; unless *strict*, followed by what is left of it that can surely be held.

    Raises RbeeError INVALID_REQUEST for a schema beyond the bounds.
    """
    whole = prepared(schema, strict=strict, param=param)
    return (whole,) if strict else (whole, relaxed(schema))


def check_size(constraint: Constraint) -> None:
    """Raise RbeeError INVALID_REQUEST for a constraint that is too large in all."""
    if constraint.size > MAX_CONSTRAINT_CHARS:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{constraint.param}: the grammar of the answer has {constraint.size} characters; "
            f"the limit is {MAX_CONSTRAINT_CHARS}.",
            param=constraint.param,
        )
