"""Read the nodes of a request that adds several, and say of each one what is wrong with it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from pydantic import ValidationError

from rbee.contracts.errors import ErrorCode
from rbee.contracts.hives import NodeSpec
from rbee.contracts.ids import LOCALHOST_NODE
from rbee.daemonkit.errors import invalid_body
from rbee.errors import RbeeError

MAX_PROBLEMS: Final = 100
_NAMED: Final = 10
_MAX_NAME: Final = 60


def parse_nodes(given: Sequence[object]) -> list[NodeSpec]:
    """Return the nodes. Raises RbeeError INVALID_REQUEST, with what is wrong with each of them."""
    specs: list[NodeSpec] = []
    problems: dict[str, str] = {}
    names: set[str] = set()
    for number, raw in enumerate(given):
        name = _name(raw, number)
        try:
            spec = NodeSpec.model_validate(raw)
        except ValidationError as error:
            problems.setdefault(name, invalid_body(error).message.rstrip("."))
        else:
            if spec.node_name in names:
                problems.setdefault(name, "it is named twice in this request")
            names.add(spec.node_name)
            specs.append(spec)
        if len(problems) == MAX_PROBLEMS:
            break
    if problems:
        raise _cannot_add(ErrorCode.INVALID_REQUEST, problems, len(given))
    return specs


def check_new(specs: Sequence[NodeSpec], known: Collection[str]) -> None:
    """Raise RbeeError NODE_EXISTS for nodes that are among those *known*, unless they are to be replaced."""
    names = [spec.node_name for spec in specs if spec.node_name in known and not spec.replace]
    if names:
        raise _cannot_add(
            ErrorCode.NODE_EXISTS, dict.fromkeys(names, "there already is a node of this name"), len(specs)
        )


def check_names(specs: Sequence[NodeSpec]) -> None:
    """Raise RbeeError NODE_EXISTS for a node with the name of the queen's own machine."""
    if any(spec.node_name == LOCALHOST_NODE for spec in specs):
        reason = "it is this queen's own machine, which needs no registration"
        hint = "Choose another name, or run the queen with --local-hive false."
        raise _cannot_add(ErrorCode.NODE_EXISTS, {LOCALHOST_NODE: reason}, len(specs), hint=hint)


def _cannot_add(code: ErrorCode, problems: Mapping[str, str], of: int, *, hint: str | None = None) -> RbeeError:
    """Build the error for nodes that cannot be added, each with its reason, because of which none is."""
    rows = [{"node": name, "reason": reason} for name, reason in problems.items()]
    if of == 1:
        ((name, reason),) = problems.items()
        return RbeeError(
            code, f"The node {name} was not added: {reason}.", details={"node": name, "nodes": rows}, hint=hint
        )
    told = [f"{name}: {reason}" for name, reason in list(problems.items())[:_NAMED]]
    more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    return RbeeError(
        code,
        f"No node was added, because of {len(problems)} of {of}: {'; '.join(told)}{more}.",
        details={"nodes": rows},
        hint=hint,
    )


def _name(raw: object, number: int) -> str:
    """Return by what a node is named in an error: its name, or its place in the request."""
    name = raw.get("node_name") if isinstance(raw, dict) else None
    return name[:_MAX_NAME] if isinstance(name, str) and name else f"nodes.{number}"
