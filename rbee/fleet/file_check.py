"""Check the files of an inventory for misspelt variables and values of the wrong type, with file and line.

What may be set is what the roles declare in their argument_specs, and the fleet-wide variables below.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from rbee.errors import ConfigError
from rbee.fleet.assets import Assets
from rbee.fleet.credentials import is_node_name
from rbee.fleet.inventory import Inventory, load
from rbee.fleet.layout import HIVES, QUEEN
from rbee.fleet.problem import Problem, about
from rbee.fleet.yaml_edit import Entry, YamlDocument
from rbee.spelling import closest

# The variables of the whole fleet, which the roles' defaults take up (inventory/README.md explains them).
FLEET: Final[Mapping[str, dict[str, Any]]] = {
    "rbee_repo_url": {"type": "str"},
    "rbee_repo_branch": {"type": "str"},
    "rbee_git_version": {"type": "str"},
    "rbee_git_verify": {"type": "bool"},
    "rbee_git_signers": {"type": "list"},
    "rbee_models": {"type": "list"},
    "rbee_served_models": {"type": "list"},
    "rbee_build_on": {"type": "str", "choices": ["controller", "host", "auto"]},
    "rbee_install_path": {"type": "path"},
    "rbee_state_path": {"type": "path"},
    "rbee_binary_path": {"type": "path"},
    "rbee_checkout_path": {"type": "path"},
    "rbee_user": {"type": "str"},
    "rbee_queen_url": {"type": "str"},
    "rbee_other_keys": {"type": "str", "choices": ["refuse", "adopt", "replace"]},
}
# Variables of Ansible that people write; a name that is close to one of them is taken for a misspelling.
_CONNECTION: Final = (
    *(f"ansible_{name}" for name in ("host", "port", "user", "connection", "password", "pipelining")),
    *(f"ansible_ssh_{name}" for name in ("host", "port", "user", "pass", "password", "args", "executable", "timeout")),
    *(f"ansible_ssh_{name}" for name in ("common_args", "extra_args", "private_key_file", "pipelining", "retries")),
    *("ansible_private_key_file", "ansible_python_interpreter", "ansible_shell_type", "ansible_shell_executable"),
    *("ansible_become", *(f"ansible_become_{name}" for name in ("method", "user", "pass", "password", "exe", "flags"))),
    *("ansible_sudo_pass", "ansible_scp_extra_args", "ansible_sftp_extra_args", "ansible_local"),
)
_PYTHON_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "str": (str, int, float),
    "path": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "list": (list,),
    "dict": (dict,),
}


def check_files(inventory: Inventory, assets: Assets) -> list[Problem]:
    """List all problems, a file that is not YAML at all among them."""
    known = known_variables(assets)
    problems: list[Problem] = []
    hosts = [file for file in inventory.hosts_files() if file.suffix in (".yml", ".yaml")]
    for file in (*hosts, *inventory.variable_files()):
        try:
            text = load(file)
        except ConfigError as error:
            problems.append(Problem(str(file), error.line, error.reason, unreadable=True))
            continue
        if file not in hosts:
            problems += _variables(text, text.entries(), known)
        elif not text.has("plugin"):
            problems += _hosts_file(text, known)
    return problems


def known_variables(assets: Assets) -> dict[str, dict[str, Any]]:
    """Return every variable of the roles, with its declaration."""
    known: dict[str, dict[str, Any]] = dict(FLEET)
    for file in sorted(assets.roles.glob("*/meta/argument_specs.yml")):
        specs = load(file).get("argument_specs", "main", "options")
        known |= {str(name): dict(spec) for name, spec in (specs or {}).items()}
    return known


def _hosts_file(text: YamlDocument, known: Mapping[str, dict[str, Any]]) -> Iterator[Problem]:
    for top in text.entries():
        yield from _group(text, (top.name,), top, known)


def _group(
    text: YamlDocument, path: tuple[str, ...], entry: Entry, known: Mapping[str, dict[str, Any]]
) -> Iterator[Problem]:
    if entry.name.startswith("rbee_") and entry.name not in (HIVES, QUEEN):
        near = difflib.get_close_matches(entry.name, (HIVES, QUEEN), 1)
        if near:
            message = f"unknown group '{entry.name}'; did you mean '{near[0]}'?"
            yield Problem(text.path, entry.line, message, about=("group", entry.name))
    for part in text.entries(*path):
        if part.name not in ("hosts", "children", "vars"):
            near = difflib.get_close_matches(part.name, ("hosts", "children", "vars"), 1)
            advice = f"; did you mean '{near[0]}'?" if near else "; a group has hosts, children and vars."
            yield Problem(text.path, part.line, f"unknown key '{part.name}' in the group '{entry.name}'{advice}")
    for host in text.entries(*path, "hosts"):
        if not is_node_name(host.name) and "[" not in host.name:
            yield Problem(text.path, host.line, f"'{host.name}' cannot be the name of a node.")
        yield from _variables(text, text.entries(*path, "hosts", host.name), known)
    yield from _variables(text, text.entries(*path, "vars"), known)
    for child in text.entries(*path, "children"):
        yield from _group(text, (*path, "children", child.name), child, known)


def _variables(text: YamlDocument, entries: list[Entry], known: Mapping[str, dict[str, Any]]) -> Iterator[Problem]:
    for entry in entries:
        if entry.name in known:
            if (message := _type_error(entry, known[entry.name])) is not None:
                yield Problem(text.path, entry.line, message, about(entry.name, entry.value))
        elif entry.name.startswith("rbee_"):
            yield Problem(text.path, entry.line, unknown_variable(entry.name, known))
        elif re.match(r"ansibl?e?_", entry.name) and entry.name not in _CONNECTION:
            near = difflib.get_close_matches(entry.name, _CONNECTION, 1, 0.88)
            if near:
                yield Problem(text.path, entry.line, f"unknown variable '{entry.name}'; did you mean '{near[0]}'?")


def unknown_variable(name: str, known: Iterable[str]) -> str:
    """Return the sentence about a variable that no role has, with what was probably meant."""
    if (meant := closest(name, known)) is not None:
        return f"unknown variable '{name}'; did you mean '{meant}'?"
    more = next((f"{role}_settings" for role in ("rbee_hive", "rbee_queen") if name.startswith(f"{role}_")), None)
    advice = "." if more is None else f"; settings without a variable of their own stand in {more}."
    return f"unknown variable '{name}'{advice}"


def _type_error(entry: Entry, spec: Mapping[str, Any]) -> str | None:
    value, kind = entry.value, str(spec.get("type", "str"))
    # A template has its value only when Ansible runs, an encrypted one only with its password.
    if value is None or (isinstance(value, str) and "{{" in value):
        return None
    right = isinstance(value, _PYTHON_TYPES[kind]) and not (isinstance(value, bool) and kind != "bool")
    if not right:
        return f"{entry.name} must be {_type_name(kind)}, not {value!r}."
    choices = spec.get("choices")
    asked = value if isinstance(value, list) else [value]
    if choices and (bad := [each for each in asked if each not in choices]):
        near = difflib.get_close_matches(str(bad[0]), [str(each) for each in choices], 1)
        return f"{entry.name} must be one of {', '.join(map(str, choices))}, not {bad[0]!r}." + (
            f" Did you mean '{near[0]}'?" if near else ""
        )
    return None


def _type_name(kind: str) -> str:
    return {
        "str": "a string",
        "path": "a path",
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "list": "a list",
        "dict": "a mapping",
    }[kind]
