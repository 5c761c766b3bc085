"""Tools: a call of one, and the form of calls that a chat template teaches. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

Tool = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool; `arguments` is JSON in a string, cut off where the call is not `whole`."""

    id: str
    name: str
    arguments: str
    whole: bool = True


@dataclass(frozen=True, slots=True)
class ToolCallFormat:
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
    ToolCallFormat("<tool_call>", "<tool_call>", "</tool_call>"),
    ToolCallFormat("[TOOL_CALLS]", "[TOOL_CALLS]", listed=True),
    ToolCallFormat('"parameters"', '{"name"', arguments="parameters", within=True),
)


def detect_format(template_source: str, names: frozenset[str]) -> ToolCallFormat:
    """Return the format that a template teaches. Raises RbeeError INVALID_REQUEST where it does not support tools."""
    if "tools" not in names:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            "This model's chat template does not support tools.",
            hint="Omit 'tools', or use a model that supports them.",
            param="tools",
        )
    for form in FORMS:
        if form.sign in template_source:
            return form
    raise RbeeError(
        ErrorCode.INVALID_REQUEST,
        "This model's chat template supports tools, but writes tool calls in a format that rbee cannot parse.",
        hint=f"Supported formats have one of these in the template: {', '.join(form.sign for form in FORMS)}.",
        param="tools",
    )
