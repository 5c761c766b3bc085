"""The tools that a request offers, as chat templates take them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.worker.chat.conversation import Tool
from rbee.worker.text.json_schema import check_bounds

_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,128}")


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """The tools of a request; `fields` are the request's fields with their schemas, by the names of the tools."""

    tools: tuple[Tool, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)


def offered_tools(functions: Mapping[int, Mapping[str, Any]], *, schema: str) -> OfferedTools:
    """Return functions as templates take them.

    Args:
        functions: as OpenAI's chats have them, by their numbers among the tools of the request.
        schema: the field of a tool that has its schema.

    Raises RbeeError INVALID_REQUEST where a name is given twice, or is none, or a schema is beyond the bounds or not
    one of an object.
    """
    fields: dict[str, str] = {}
    for number, function in functions.items():
        name = function.get("name") or ""
        if not _NAME.fullmatch(name):
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"tools.{number}: {name[:60]!r} cannot be the name of a tool.",
                hint="A name has 1 to 128 letters, digits, dots, hyphens and underscores.",
                param=f"tools.{number}",
            )
        if name in fields:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"tools.{number}: there are two tools named {name!r}.",
                hint="Give each tool a name of its own.",
                param=f"tools.{number}",
            )
        fields[name] = f"tools.{number}.{schema}"
        _check_schema(function.get("parameters") or {}, fields[name])
    return OfferedTools(tuple({"type": "function", "function": function} for function in functions.values()), fields)


def _check_schema(parameters: Mapping[str, Any], where: str) -> None:
    # The chat library and templates walk through it, however deep it is.
    check_bounds(parameters, where)
    stated = parameters.get("type")
    types = stated if isinstance(stated, list) else [stated]
    if stated is not None and "object" not in types:
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{where}: the arguments of a call are an object, and not of type {str(stated)[:60]!r}.",
            hint="Describe an object, with the arguments as its properties.",
            param=where,
        )
