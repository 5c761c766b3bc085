"""The grammars of calls: of an answer that must be calls, and of one that is free until a call begins. Pure.

They are Lark as llguidance reads it. A mark that the vocabulary has as a token of its own may be written as that token
or letter by letter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Final

from rbee.errors import RbeeError
from rbee.worker.compat.tools import Tool, ToolCallFormat
from rbee.worker.text.constraint import Constraint, SchemaRule, schema_choices
from rbee.worker.text.json_schema import any_object

MAX_CALLS: Final = 16
MAX_FREE_CHARS: Final = 400_000  # of a grammar that nobody asked for
_HEADER: Final = "%llguidance {}"
_TEXT: Final = r"TEXT: /(.|\n)*/"
_SPACE: Final = '" "?'
_COMMA: Final = f'"," {_SPACE}'
SpecialToken = Callable[[str], int | None]
"""Returns the token that a text names, None if there is none."""


def call_grammar(
    form: ToolCallFormat, tools: Sequence[Tool], *, parallel: bool, special_token: SpecialToken
) -> Constraint:
    """Return the grammar of an answer that is a call of one of *tools*, or several, and nothing else.

    Raises RbeeError INVALID_REQUEST for a tool whose schema is beyond the bounds.
    """
    rules = [_arguments(tool, number, strict=bool(tool["function"].get("strict"))) for number, tool in enumerate(tools)]
    opening, closing = _mark(form.opening, special_token), _mark(form.closing, special_token)
    if form.listed:
        start = f'{opening} "[" one{_more(_COMMA, "one", parallel=parallel)} "]"'
    elif form.within:
        start = "one"
    else:
        whole = f'{opening} "\\n" one "\\n" {closing}'
        start = whole + _more('"\\n"', whole, parallel=parallel)
    return _constraint([f"start: {start}", _one_of(form, tools)], rules, required=True)


def free_grammar(
    form: ToolCallFormat, tools: Sequence[Tool], *, parallel: bool, special_token: SpecialToken
) -> Constraint | None:
    """Return the grammar of any text in which a call, once begun, is one of *tools* with arguments that fit.

    A tool whose schema cannot be held has any object as its arguments; None where the whole would be too large.
    """
    rules = [_arguments_or_object(tool, number) for number, tool in enumerate(tools)]
    if form.within:
        # That a call begins is only believed when a tool has been named: JSON may be an answer as well.
        named = "|".join(re.escape(json.dumps(tool["function"]["name"])).replace("/", r"\/") for tool in tools)
        text = rf'{_TEXT} & ~/[ \t\r\n]*\{{"name": ({named})(.|\n)*/'
        lines = ["start: one | TEXT", text, _one_of(form, tools, before=r"[ \t\r\n]*")]
    else:
        calls = "call* TEXT" if parallel and not form.listed else "call | TEXT"
        if form.listed:
            call = f'{_SPACE} "[" {_SPACE} one{_more(_COMMA, "one", parallel=parallel)} "]"'
        else:
            call = f'"\\n"? {_SPACE} one "\\n"? {_mark(form.closing, special_token)}'
        token = special_token(form.opening)
        opening = "mark" if token is None else f"(mark | TEXT <[{token}]>)"
        mark = f"mark[lazy]: TEXT {json.dumps(form.opening)}"
        lines = [f"start: {calls}", _TEXT, mark, f"call: {opening} {call}", _one_of(form, tools)]
    constraint = _constraint(lines, rules, required=False)
    return constraint if constraint.size <= MAX_FREE_CHARS else None


def _constraint(lines: Sequence[str], rules: Sequence[SchemaRule], *, required: bool) -> Constraint:
    return Constraint("\n".join([_HEADER, *lines]), "tools", rules=tuple(rules), required=required)


def _arguments(tool: Tool, number: int, *, strict: bool) -> SchemaRule:
    param = f"tools.{number}.function.parameters"
    schema = tool["function"].get("parameters") or {"type": "object"}
    return SchemaRule(f"t{number}", schema_choices(schema, strict=strict, param=param), param)


def _arguments_or_object(tool: Tool, number: int) -> SchemaRule:
    param = f"tools.{number}.function.parameters"
    try:
        rule = _arguments(tool, number, strict=False)
    except RbeeError:
        return SchemaRule(f"t{number}", (any_object(),), param)
    return SchemaRule(rule.name, (*rule.schemas, any_object()), param)


def _one_of(form: ToolCallFormat, tools: Sequence[Tool], *, before: str = "") -> str:
    """Return the rule of one call, each of a tool; its head is one lexeme, which text cannot begin with."""
    heads = [f'{{"name": {json.dumps(tool["function"]["name"])}, "{form.arguments}": ' for tool in tools]
    bodies = [f'/{before}{_pattern(head)}/ t{number} "}}"' for number, head in enumerate(heads)]
    return "one: " + " | ".join(bodies)


def _pattern(text: str) -> str:
    return re.escape(text).replace("/", r"\/").replace(r"\ ", " ")


def _more(separator: str, following: str, *, parallel: bool) -> str:
    """Return what may come after the first call."""
    return f" ({separator} {following}){{0,{MAX_CALLS - 1}}}" if parallel else ""


def _mark(text: str, special_token: SpecialToken) -> str:
    token = special_token(text) if text else None
    return json.dumps(text) if token is None else f"({json.dumps(text)} | <[{token}]>)"
