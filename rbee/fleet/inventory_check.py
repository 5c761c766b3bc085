"""Check what an inventory comes to: bounds, two machines at one address, groups and variables that nobody has.

`schema` checks what stands in the files; this is about the machines that Ansible makes of it.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Final

from rbee.fleet.ansible_inventory import is_template
from rbee.fleet.inventory import Inventory, Node
from rbee.fleet.layout import HIVES, QUEEN
from rbee.fleet.schema import Problem

_PORTS: Final = ("ansible_port", "ansible_ssh_port", "rbee_hive_port", "rbee_queen_port", "rbee_hive_first_worker_port")
_COUNTS: Final = ("rbee_hive_slots", "rbee_hive_context_length")
_PATHS: Final = ("rbee_install_path", "rbee_state_path", "rbee_hive_state_path", "rbee_queen_state_path")
_SYSTEM: Final = (
    *("/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/opt", "/proc", "/root", "/sbin", "/srv", "/sys", "/usr"),
    *("/tmp", "/usr/local", "/var", "/var/lib", "/var/log"),  # noqa: S108 -- refused, not used
)
_REFERENCE: Final = re.compile(r"(hf:[^/\s]+/\S+|file:///\S+|https://\S+|package:[^/\s]+/\S+)$")


def check_machines(inventory: Inventory) -> list[Problem]:
    """List the problems of the machines. Raises ConfigError where Ansible refuses the inventory."""
    nodes = inventory.nodes(None)
    path = str(inventory.path)
    found = [Problem(path, None, message) for message in (*_values(nodes), *_addresses(nodes), *_groups(nodes))]
    return found + list(_variables_of_nobody(inventory, nodes))


def _values(nodes: Sequence[Node]) -> Iterator[str]:
    """Yield what is out of bounds, once for all machines that have it."""
    bad: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        for name, value in node.variables.items():
            if (problem := _problem_of(name, value)) is not None:
                bad[problem].append(node.name)
    for problem, names in bad.items():
        yield f"{problem} ({listed(names)})"


def _problem_of(name: str, value: object) -> str | None:
    if value is None or is_template(value):
        return None
    number = int(value) if isinstance(value, int | str) and re.fullmatch(r"-?\d+", str(value)) else None
    if name in _PORTS and (number is None or not 1 <= number <= 65535):
        return f"{name} must be a port from 1 to 65535, not {value!r}."
    if name in _COUNTS and (number is None or number < 1):
        return f"{name} must be 1 or more, not {value!r}."
    if name in _PATHS:
        path = PurePosixPath(str(value))
        if not path.is_absolute() or ".." in path.parts:
            return f"{name} must be an absolute path, not {value!r}."
        if str(path) in _SYSTEM:
            return f"{name} must be a folder of rbee's own, not {value!r}."
    if name == "rbee_models" and isinstance(value, list):
        for reference in value:
            if not (isinstance(reference, str) and (is_template(reference) or _REFERENCE.match(reference))):
                return (
                    f"rbee_models: {reference!r} is no model reference; "
                    "write hf:org/repo, file:///path, https://host/file.gguf or package:name/file."
                )
    return None


def _addresses(nodes: Sequence[Node]) -> Iterator[str]:
    """Yield the machines that are one machine twice."""
    at: dict[tuple[str, int], list[str]] = defaultdict(list)
    for node in nodes:
        if HIVES in node.groups:
            at[node.address, node.port or 22].append(node.name)
    for (address, port), names in at.items():
        if len(names) > 1:
            yield f"{listed(names)} have the same address, {address} port {port}: one machine is to be named once."


def _groups(nodes: Sequence[Node]) -> Iterator[str]:
    queens = [node.name for node in nodes if QUEEN in node.groups]
    if len(queens) > 1:
        yield f"the group {QUEEN} has {len(queens)} machines ({listed(queens)}): a fleet has one queen."
    if nodes and not any(HIVES in node.groups for node in nodes):
        groups = sorted({group for node in nodes for group in node.groups})
        near = difflib.get_close_matches(HIVES, groups, 1, 0.3)
        advice = f" Is '{near[0]}' meant to be it?" if near else ""
        yield f"no machine is in the group {HIVES}, so none of them computes.{advice}"


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


def listed(names: Sequence[str]) -> str:
    """Format names of machines, the first five of many."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
