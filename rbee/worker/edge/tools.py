"""Tools: which form of calls a chat template teaches, the grammar of that form, and the reader of what comes. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import new_id
from rbee.errors import RbeeError
from rbee.worker.grammar import literal, rules_of_schema, together

MAX_CALLS: Final = 16
Tool = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool; `arguments` is JSON in a string."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class CallForm:
    """How a model writes its calls: JSON between two marks, alone or in a list.

    `sign` in a template tells the form. Where `opening` is the beginning of the JSON itself it is `within`.
    """

    sign: str
    opening: str
    closing: str = ""
    arguments: str = "arguments"
    listed: bool = False
    within: bool = False


FORMS: Final = (
    CallForm("<tool_call>", "<tool_call>", "</tool_call>"),
    CallForm("[TOOL_CALLS]", "[TOOL_CALLS]", listed=True),
    CallForm('"parameters"', '{"name"', arguments="parameters", within=True),
)


def form_of(template_source: str, names: frozenset[str]) -> CallForm:
    """Tell the form that a template teaches. Raises RbeeError INVALID_REQUEST where it knows no tools."""
    if "tools" not in names:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            "This model's chat template knows no tools.",
            hint="Leave 'tools' out, or use a model that was made for them.",
            param="tools",
        )
    for form in FORMS:
        if form.sign in template_source:
            return form
    raise RbeeError(
        ErrorCode.INVALID_REQUEST,
        "This model's chat template knows tools, but has its calls written in a form that rbee cannot read.",
        hint=f"The forms that are read have one of these in the template: {', '.join(form.sign for form in FORMS)}.",
        param="tools",
    )


def call_grammar(form: CallForm, tools: Sequence[Tool], *, parallel: bool) -> str:
    """Give the grammar of an answer that is a call of one of *tools*, or several, and nothing else."""
    rules: dict[str, str] = {}
    bodies = []
    for number, tool in enumerate(tools):
        function = tool["function"]
        schema = function.get("parameters") or {"type": "object"}
        strict = bool(function.get("strict"))
        root = f"t{number}"
        rules |= rules_of_schema(schema, strict=strict, param=f"tools.{number}.function.parameters", root=root)
        name = literal(json.dumps(function["name"]))
        bodies.append(f'"{{\\"name\\": " {name} ", \\"{form.arguments}\\": " {root} "}}"')
    more = f"{{0,{MAX_CALLS - 1}}}" if parallel else "{0,0}"
    if form.listed:
        root_rule = f'{literal(form.opening)} "[" one ("," ws one){more} "]"'
    elif form.within:
        root_rule = "one"
    else:
        begin, end = literal(form.opening + "\n"), literal("\n" + form.closing)
        root_rule = f'{begin} one {end} ("\\n" {begin} one {end}){more}'
    return together({"root": root_rule, "one": " | ".join(bodies), **rules})


class CallReader:
    """Part what a model writes into text and calls.

    What could be the beginning of a call is held back; what begins like one and is none is given as the text it is.
    """

    def __init__(self, form: CallForm) -> None:
        self._form = form
        self._held = ""
        self._inside = False
        self.called = False

    def feed(self, text: str) -> list[str | Call]:
        """Take what came; give what may be shown now."""
        self._held += text
        found: list[str | Call] = []
        while self._advance(found):
            pass
        return found

    def finish(self) -> list[str | Call]:
        """Give what was held back, now that no more comes."""
        found: list[str | Call] = []
        held, self._held = self._held, ""
        if held:
            calls = self._parsed(held) if self._inside else None
            self._add(found, calls, ("" if not self._inside or self._form.within else self._form.opening) + held)
        return found

    def _advance(self, found: list[str | Call]) -> bool:
        form = self._form
        if self._inside:
            at = self._held.find(form.closing) if form.closing else -1
            if at < 0:
                return False
            body, self._held = self._held[:at], self._held[at + len(form.closing) :]
            self._inside = False
            self._add(found, self._parsed(body), form.opening + body + form.closing)
            return bool(self._held)
        at = self._held.find(form.opening)
        if at >= 0:
            shown, self._held = self._held[:at], self._held[at + (0 if form.within else len(form.opening)) :]
            self._inside = True
            self._show(found, shown)
            return True
        lengths = range(min(len(form.opening) - 1, len(self._held)), 0, -1)
        keep = next((length for length in lengths if self._held.endswith(form.opening[:length])), 0)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        self._show(found, shown)
        return False

    def _add(self, found: list[str | Call], calls: list[Call] | None, instead: str) -> None:
        if calls is None:
            self._show(found, instead)
        else:
            self.called = True
            found += calls

    def _show(self, found: list[str | Call], text: str) -> None:
        """Show text; the white space between and after calls is none."""
        if text and not (self.called and not text.strip()):
            found.append(text)

    def _parsed(self, body: str) -> list[Call] | None:
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            return None
        items = value if self._form.listed and isinstance(value, list) else [value]
        calls = []
        for item in items:
            arguments = item.get("arguments", item.get("parameters")) if isinstance(item, dict) else None
            if not isinstance(arguments, dict) or not isinstance(item.get("name"), str):
                return None
            calls.append(Call(new_id("call").replace("-", "_"), item["name"], json.dumps(arguments)))
        return calls or None
