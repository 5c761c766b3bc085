"""Check the machines of an inventory: their values, two at one address, groups and variables that nobody has.

`file_check` is about what stands in the files; this is about the machines that Ansible makes of it.
"""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence

from rbee.fleet.file_check import unknown_variable
from rbee.fleet.inventory import Inventory, Node
from rbee.fleet.layout import HIVES, QUEEN
from rbee.fleet.problem import Problem, about, listed
from rbee.fleet.value_check import check_values
from rbee.fleet.variable_lines import locate
from rbee.spelling import closest


def check_machines(inventory: Inventory, known: Collection[str]) -> list[Problem]:
    """List the problems of the machines; *known* are the variables that may be set.

    Raises ConfigError where Ansible refuses the inventory.
    """
    nodes = inventory.nodes(None)
    path = str(inventory.path)
    messages = [*_unknown_variables(inventory, nodes, known), *_addresses(nodes)]
    found = [*_values(inventory, nodes), *(Problem(path, None, message) for message in messages)]
    return [*found, *_groups(path, nodes), *_variables_of_nobody(inventory, nodes)]


def _values(inventory: Inventory, nodes: Sequence[Node]) -> Iterator[Problem]:
    """Yield what is wrong with the values of variables, once for all machines that have it."""
    machines: dict[tuple[str, str], list[str]] = defaultdict(list)
    findings = {}
    for node in nodes:
        for finding in check_values(node.variables, node.groups):
            key = (finding.variable, finding.message)
            findings[key] = finding
            machines[key].append(node.name)
    for key, finding in findings.items():
        file, line = locate(inventory, finding.variable, finding.value) or (str(inventory.path), None)
        message = f"{finding.message} ({listed(machines[key])})"
        yield Problem(file, line, message, about(finding.variable, finding.entry or finding.value))


def _unknown_variables(inventory: Inventory, nodes: Sequence[Node], known: Collection[str]) -> Iterator[str]:
    """Yield the misspelt variables of sources that are no YAML, which `file_check` cannot read."""
    machines: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        for name in node.variables:
            if name.startswith("rbee_") and name not in known:
                machines[name].append(node.name)
    for name, names in machines.items():
        if locate(inventory, name, None) is None:
            yield f"{unknown_variable(name, known)} ({listed(names)})"


def _addresses(nodes: Sequence[Node]) -> Iterator[str]:
    """Yield the machines that are one machine twice."""
    at: dict[tuple[str, int], list[str]] = defaultdict(list)
    for node in nodes:
        if HIVES in node.groups:
            at[node.address, node.port or 22].append(node.name)
    for (address, port), names in at.items():
        if len(names) > 1:
            yield f"{listed(names)} have the same address, {address} port {port}: one machine is to be named once."


def _groups(path: str, nodes: Sequence[Node]) -> Iterator[Problem]:
    queens = [node.name for node in nodes if QUEEN in node.groups]
    if len(queens) > 1:
        yield Problem(
            path, None, f"the group {QUEEN} has {len(queens)} machines ({listed(queens)}): a fleet has one queen."
        )
    near = None
    if nodes and not any(HIVES in node.groups for node in nodes):
        near = closest(HIVES, sorted({group for node in nodes for group in node.groups} - {QUEEN}))
        advice = f" Is '{near}' meant to be it?" if near else ""
        message = f"no machine is in the group {HIVES}, so none of them computes.{advice}"
        yield Problem(path, None, message, about=("group", near) if near else None)
    # An inventory may have machines that are none of rbee's, but hardly in a group of almost the same name.
    strangers: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        if HIVES not in node.groups and QUEEN not in node.groups:
            for group in node.groups:
                strangers[group].append(node.name)
    for group, names in strangers.items():
        if group != near and (meant := closest(group, (HIVES, QUEEN))) is not None:
            message = f"the group '{group}' ({listed(names)}) is none of rbee's; is '{meant}' meant, or a group in it?"
            yield Problem(path, None, message, about=("group", group))


def _variables_of_nobody(inventory: Inventory, nodes: Sequence[Node]) -> Iterator[Problem]:
    """Yield the files of variables that belong to no machine and no group."""
    names = {node.name for node in nodes}
    folder = inventory.folder / "host_vars"
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        name = file.name.removesuffix(file.suffix) if file.suffix in (".yml", ".yaml", ".json") else file.name
        if name not in names and not file.name.startswith("."):
            near = difflib.get_close_matches(name, names, 1)
            advice = f"; did you mean '{near[0]}'?" if near else "."
            yield Problem(str(file), None, f"there is no machine '{name}'{advice}")
