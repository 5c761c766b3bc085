"""The grammars of calls: of an answer that must be calls, and of one that is free until a call begins. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from rbee.errors import RbeeError
from rbee.worker.compat.tools import Tool, ToolCallFormat
from rbee.worker.text.json_schema_gbnf import literal, rules_of_schema, together

MAX_CALLS: Final = 16
MAX_FREE_CHARS: Final = 400_000  # of a grammar that nobody asked for: that much is compiled in under 10 ms
_ANY: Final = r"[^\x00]*"
_SPACE: Final = " \t\r\n"
Rules = dict[str, str]


def call_grammar(form: ToolCallFormat, tools: Sequence[Tool], *, parallel: bool) -> str:
    """Return the grammar of an answer that is a call of one of *tools*, or several, and nothing else.

    Raises RbeeError INVALID_REQUEST for a tool whose schema has no grammar.
    """
    rules: Rules = {}
    bodies = []
    for number, tool in enumerate(tools):
        root = f"t{number}"
        rules |= _arguments(tool, number, root, strict=bool(tool["function"].get("strict")))
        bodies.append(_head(form, tool) + f' {root} "}}"')
    more = _more(parallel=parallel)
    if form.listed:
        root_rule = f'{literal(form.opening)} "[" one ("," ws one){more} "]"'
    elif form.within:
        root_rule = "one"
    else:
        begin, end = literal(form.opening + "\n"), literal("\n" + form.closing)
        root_rule = f'{begin} one {end} ("\\n" {begin} one {end}){more}'
    return together({"root": root_rule, "one": " | ".join(bodies), **rules})


def free_grammar(form: ToolCallFormat, tools: Sequence[Tool], *, parallel: bool) -> str | None:
    """Return the grammar of any text in which a call, once begun, is one of *tools* with arguments that fit.

    It is an ordinary grammar, which follows the free text letter by letter to see a call begin. A tool whose schema
    has no grammar has any object as its arguments; None where the whole would be too large.
    """
    rules: Rules = {}
    size = 0
    for number, tool in enumerate(tools):
        root = f"t{number}"
        try:
            arguments = _arguments(tool, number, root, strict=False)
        except RbeeError:
            arguments = {root: "object"}
        size += sum(map(len, arguments.values()))
        if size > MAX_FREE_CHARS:
            return None
        rules |= arguments
    if form.within:
        rules |= _answers(form, tools)
    else:
        bodies = [_head(form, tool) + f' t{number} "}}"' for number, tool in enumerate(tools)]
        rules["one"] = " | ".join(bodies)
        if form.listed:
            call = f'ws "[" ws one ("," ws one){_more(parallel=parallel)} "]"'
        else:
            call = f'"\\n"? ws one "\\n"? {literal(form.closing)}' + (" root" if parallel else "")
        rules |= _texts(form.opening, call)
    grammar = together(rules)
    return grammar if len(grammar) <= MAX_FREE_CHARS else None


def _arguments(tool: Tool, number: int, root: str, *, strict: bool) -> Rules:
    schema = tool["function"].get("parameters") or {"type": "object"}
    return rules_of_schema(schema, strict=strict, param=f"tools.{number}.function.parameters", root=root)


def _head(form: ToolCallFormat, tool: Tool) -> str:
    """Return the rule for a call up to its arguments."""
    return literal(_named(tool) + _between(form))


def _named(tool: Tool) -> str:
    return f'{{"name": {json.dumps(tool["function"]["name"])}'


def _between(form: ToolCallFormat) -> str:
    return f', "{form.arguments}": '


def _more(*, parallel: bool) -> str:
    return f"{{0,{MAX_CALLS - 1}}}" if parallel else "{0,0}"


def _texts(mark: str, then: str) -> Rules:
    """Return the rules of any text, in which *mark* is followed by *then*; the first is root.

    One rule for each part of the mark that may have come: what follows leads to the longest part that has come then.
    """
    rules: Rules = {}
    for come in range(len(mark)):
        steps = {char: _longest(mark, mark[:come] + char) for char in dict.fromkeys(mark)}
        ways = {char: then if part == len(mark) else _state(part) for char, part in steps.items() if part}
        rules[_state(come)] = _choice(ways, _state(0))
    return rules


def _state(come: int) -> str:
    return f"free{come}" if come else "root"


def _longest(mark: str, text: str) -> int:
    """Count the characters of the longest beginning of *mark* that *text* ends with."""
    return next(length for length in range(min(len(mark), len(text)), -1, -1) if text.endswith(mark[:length]))


def _answers(form: ToolCallFormat, tools: Sequence[Tool]) -> Rules:
    """Return the rules of an answer that is a call from its first letter on, or any text.

    That a call begins is only believed when a tool has been named: JSON may be an answer as well.
    """
    rules: Rules = {"any": _ANY}
    calls = {_named(tool): f'{literal(_between(form))} t{number} "}}"' for number, tool in enumerate(tools)}
    states = {"": 0}
    for named in calls:
        for length in range(1, len(named)):
            states.setdefault(named[:length], len(states))
    for come, number in states.items():
        following = dict.fromkeys(named[len(come)] for named in calls if named.startswith(come))
        ways = {char: calls.get(come + char) or _state(states[come + char]) for char in following}
        if not come:
            ways |= dict.fromkeys(_SPACE, _state(0))
        rules[_state(number)] = _choice(ways, "any")
    return rules


def _choice(ways: Mapping[str, str], otherwise: str) -> str:
    """Return the rule of a text that ends here, or goes on with one of the characters of *ways*, or with another."""
    named = [f"{_one_of(char)} {way}" for char, way in ways.items()]
    return "(" + " | ".join([*named, f"{_none_of(ways)} {otherwise}"]) + ")?"


def _one_of(char: str) -> str:
    return f"[{_code(char)}]"


def _none_of(chars: Mapping[str, str]) -> str:
    return f"[^{''.join(map(_code, chars))}]"


def _code(char: str) -> str:
    return f"\\x{ord(char):02X}"  # marks and the names of tools, as JSON, are ASCII
