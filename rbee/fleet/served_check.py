"""Check the models that an inventory declares to be served: each by itself, its machines and groups, and all together.

What one declaration may be is said by `config.served`, as for the queen's own files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from rbee.config.file import BUILT_IN_ALIASES
from rbee.config.served import parse
from rbee.contracts.ids import LOCALHOST_NODE
from rbee.contracts.served import ServedModel, contradictions
from rbee.fleet.ansible_inventory import is_open
from rbee.fleet.inventory import Inventory, Node
from rbee.fleet.layout import HIVES, QUEEN
from rbee.fleet.problem import Problem, listed
from rbee.fleet.variable_lines import locate_in
from rbee.spelling import closest

_VARIABLES: Final = ("rbee_queen_served_models", "rbee_served_models")  # the first that is set counts


class Finding(NamedTuple):
    """What is wrong with a declared model of a list: where in the list, and the reason as a sentence."""

    path: tuple[str | int, ...]
    reason: str


def check_served(inventory: Inventory) -> list[Problem]:
    """List what is wrong with the declared models. Raises ConfigError where Ansible refuses the inventory."""
    nodes = inventory.nodes(None)
    queens = [node for node in nodes if QUEEN in node.groups]
    found: list[Problem] = []
    checked: list[tuple[str, Any]] = []
    for node in queens or nodes:
        variable, value = next(
            ((name, node.variables[name]) for name in _VARIABLES if node.variables.get(name) is not None), ("", None)
        )
        if not value or not isinstance(value, list) or (variable, value) in checked:
            continue
        checked.append((variable, value))
        findings = check_list(value, nodes, local_hive=bool(node.variables.get("rbee_queen_local_hive")))
        if not queens:
            findings = [
                Finding(
                    (),
                    f"no machine is in the group {QUEEN}, whose queen would serve these models; what a queen outside "
                    "of the inventory serves is declared in its config file, in tables [served.NAME]",
                )
            ]
        for finding in findings:
            file, line = locate_in(inventory, variable, value, finding.path) or (str(inventory.path), None)
            found.append(Problem(file, line, f"{variable}: {finding.reason}{'' if finding.reason[-1] == '?' else '.'}"))
    return found


def check_list(declared: Sequence[Any], nodes: Sequence[Node], *, local_hive: bool) -> list[Finding]:
    """List what is wrong with a list of declared models, for a fleet of these machines. Pure.

    Args:
        local_hive: whether the queen has a hive of its own, the node localhost.
    """
    hives = [node.name for node in nodes if HIVES in node.groups]
    with_hives = {group for node in nodes if HIVES in node.groups for group in node.groups}
    groups = {group: group in with_hives for node in nodes for group in node.groups}
    found: list[Finding] = []
    models: list[ServedModel] = []
    positions: list[int] = []
    for index, fields in enumerate(declared):
        if is_open(fields):
            continue
        if not isinstance(fields, Mapping) or not isinstance(fields.get("name"), str):
            found.append(Finding((index,), "each model is a mapping with a 'name'"))
            continue
        name, where = fields["name"], fields.get("where")
        rest = {key: value for key, value in fields.items() if key != "name" and value is not None}
        if isinstance(where, Mapping):
            rest["where"] = {key: value for key, value in where.items() if key != "groups" and value is not None}
            places = [*([LOCALHOST_NODE] if local_hive else []), *hives]
            found += [
                Finding((index, "where", *finding.path), f"{name}: {finding.reason}")
                for finding in _places(where, places, groups)
            ]
        model, findings = parse(name, rest, BUILT_IN_ALIASES)
        found += [Finding((index, *each.path), f"{name}: {each.reason}") for each in findings]
        if model is not None:
            models.append(model)
            positions.append(index)
    # A name that is not judged yet may be that of a fallback.
    if len(models) == len(declared):
        last = {model.name: index for model, index in zip(models, positions, strict=True)}
        found += [Finding((last[each.names[0]],), each.reason) for each in contradictions(models)]
    return found


def _places(where: Mapping[str, Any], hives: Sequence[str], groups: Mapping[str, bool]) -> Iterator[Finding]:
    """Yield the machines and groups that are none; *groups* says of each whether it has a hive."""
    named = where.get("nodes")
    for node in named if isinstance(named, list) else ():
        if isinstance(node, str) and node not in hives:
            yield Finding(("nodes",), f"no machine of {HIVES} is named '{node}'{_advice(node, hives)}")
    named = where.get("groups")
    if named is not None and not isinstance(named, list):
        yield Finding(("groups",), "where.groups: must be a list of groups")
        return
    for group in named or ():
        if not groups.get(str(group)):
            reason = "has no hive" if group in groups else "does not exist"
            others = [other for other, has_hives in groups.items() if has_hives]
            yield Finding(("groups",), f"the group '{group}' {reason}{_advice(str(group), others)}")


def _advice(name: str, known: Sequence[str]) -> str:
    if (meant := closest(name, known)) is not None:
        return f"; did you mean '{meant}'?"
    return f"; there are {listed(known)}" if known else ""
