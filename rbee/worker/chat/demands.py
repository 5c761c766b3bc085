"""What an answer must match: the calls that a request demands, its schema or grammar, in the model's own form. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.chat.conversation import Tool
from rbee.worker.chat.form import NOTHING, SPACE, Content, FormError, Tree, sequenced
from rbee.worker.chat.forms import AnswerForm
from rbee.worker.chat.grammar import MAX_CHARS, Marks, lark_of
from rbee.worker.chat.normalization import may_be_text
from rbee.worker.chat.parser_form import read_calls
from rbee.worker.text.constraint import Constraint, SchemaRule, schema_choices
from rbee.worker.text.json_schema import any_object

_DEFINITIONS: Final = ("$defs", "definitions")
_NO_FIELDS: Final[Mapping[str, str]] = {}


def calls_demanded(
    form: AnswerForm,
    tools: Sequence[Tool],
    *,
    begun: str,
    marks: Marks,
    single: bool,
    fields: Mapping[str, str] = _NO_FIELDS,
) -> Constraint:
    """Return the constraint of an answer that is a call of one of *tools*, or several, perhaps after a thought.

    Args:
        fields: the request's fields with the schemas of the tools, by the names of these.

    Raises RbeeError INVALID_REQUEST where a schema is beyond the bounds, or this model cannot be held to calls.
    """
    try:
        trees = [form.tree(content=NOTHING, raw=_raw_names(tools), begun=begun, single=single)]
    except FormError as error:
        raise _not_held("tool_choice", error, begun) from error
    return _constraint(trees, tools, marks, fields, required=True)


def calls_held(
    form: AnswerForm, tools: Sequence[Tool], *, marks: Marks, single: bool, fields: Mapping[str, str] = _NO_FIELDS
) -> Constraint | None:
    """Return the constraint of any text in which a call, once begun, is one of *tools* with arguments that fit.

    A tool whose schema cannot be held has any object as its arguments, unless it is strict: then the request cannot be
    answered. None where the model's calls cannot be told from its text as they begin.
    """
    try:
        raw = _raw_names(tools)
        if form.triggers is None:
            tree = form.tree(content=None, raw=raw, single=single)
        elif form.triggers:
            tree = read_calls(form.parser, form.triggers, raw=raw, single=single)
        else:
            return None
        constraint = _constraint([tree], tools, marks, fields, required=False)
    except (FormError, RbeeError):
        return None
    return constraint if constraint.size <= MAX_CHARS else None


def answer_demanded(
    form: AnswerForm,
    answer: Constraint,
    *,
    begun: str,
    marks: Marks,
    calls: AnswerForm | None = None,
    tools: Sequence[Tool] = (),
    single: bool = False,
    fields: Mapping[str, str] = _NO_FIELDS,
) -> Constraint:
    """Return the constraint of an answer whose content is *answer*, perhaps after a thought, or else calls.

    Args:
        form: of answers without calls.
        calls: the form of answers that are calls, where they may be.

    Raises RbeeError INVALID_REQUEST where this model cannot be held to it.
    """
    if form.is_plain and calls is None:
        return answer
    try:
        trees = [form.tree(content=sequenced([SPACE, Content()]), begun=begun)]
        if calls is not None:
            trees.append(calls.tree(content=NOTHING, raw=_raw_names(tools), begun=begun, single=single))
    except FormError as error:
        raise _not_held(answer.param, error, begun) from error
    return _constraint(trees, tools, marks, fields, required=True, answer=answer)


def _constraint(
    trees: Sequence[Tree],
    tools: Sequence[Tool],
    marks: Marks,
    fields: Mapping[str, str],
    *,
    required: bool,
    answer: Constraint | None = None,
) -> Constraint:
    rules = {name: f"schema_{number}" for number, name in enumerate(dict(_schemas(tools, fields)))}
    try:
        lark, used = lark_of(trees, rules=rules, marks=marks)
    except FormError as error:
        raise _not_held(answer.param if answer is not None else "tools", error) from error
    needed = [(rules[name], *stated) for name, stated in _schemas(tools, fields) if rules[name] in used]
    schemas = tuple(_rule(*one, required=required) for one in needed)
    required = required or any(strict for *_, strict in needed)
    if answer is None:
        return Constraint(lark, "tools", rules=schemas, required=required)
    if answer.language == "gbnf":
        return Constraint(lark, answer.param, rules=schemas, answer=answer.grammar)
    return Constraint(lark, answer.param, rules=(*schemas, *answer.rules))


def _rule(name: str, schema: Mapping[str, Any], param: str, strict: bool, *, required: bool) -> SchemaRule:  # noqa: FBT001
    choices = schema_choices(schema, strict=strict, param=param)
    return SchemaRule(name, choices if required or strict else (*choices, any_object()), param)


def _schemas(
    tools: Sequence[Tool], fields: Mapping[str, str]
) -> Iterator[tuple[str, tuple[Mapping[str, Any], str, bool]]]:
    """Yield the schemas that the parser of calls refers to by these names, with the request's field and strictness."""
    for tool in tools:
        function = tool["function"]
        name, parameters = function["name"], function.get("parameters") or {"type": "object"}
        param, strict = fields.get(name, "tools"), bool(function.get("strict"))
        yield f"tool-{name}-schema", (parameters, param, strict)
        shared = {key: parameters[key] for key in _DEFINITIONS if key in parameters}
        properties = parameters.get("properties")
        for key, schema in properties.items() if isinstance(properties, Mapping) else ():
            # A schema may be true, for any value.
            stated = {**shared, **(schema if isinstance(schema, Mapping) else {})}
            for pattern in ("tool-{}-arg-{}-schema", "ling3-arg-{}-{}-schema"):
                yield pattern.format(name, key), (stated, param, strict)


def _raw_names(tools: Sequence[Tool]) -> set[str]:
    return {name for name, (schema, _, _) in _schemas(tools, _NO_FIELDS) if may_be_text(schema)}


def _not_held(param: str, error: FormError, begun: str = "") -> RbeeError:
    if begun:
        return RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{param}: an answer that goes on with a message of the assistant cannot be held to it.",
            hint='Leave the assistant\'s last message out, or begin a new one: "continue_final_message": false.',
            param=param,
        )
    return RbeeError(
        ErrorCode.INVALID_REQUEST,
        f"{param}: the answers of this model cannot be held to it: {error}.",
        hint="Leave the choice to the model, or give the worker another chat template (--chat-template-file).",
        param=param,
    )
