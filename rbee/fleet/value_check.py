"""Check the values that one machine has for the variables of the roles: bounds, folders, addresses, models. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple

from rbee.client.blocking import split_url
from rbee.config.layering import control_character
from rbee.errors import RbeeError
from rbee.fleet.ansible_inventory import is_template
from rbee.fleet.layout import HIVES, QUEEN
from rbee.model_reference import parse_reference

_PORTS: Final = ("ansible_port", "ansible_ssh_port", "rbee_hive_port", "rbee_queen_port", "rbee_hive_first_worker_port")
_COUNTS: Final = ("rbee_hive_slots", "rbee_hive_context_length")
_ADDRESSES: Final = ("rbee_queen_url", "rbee_hive_queen_url", "rbee_models_hive_url", "rbee_models_queen_url")
_MODELS: Final = ("rbee_models", "rbee_models_wanted", "rbee_runtime_models")
# The folders that roles fill and empty, each with the roles that take it from a variable of their own.
_FOLDERS: Final[Mapping[str, tuple[str, ...]]] = {
    "install_path": ("base", "runtime", "hive", "queen"),
    "state_path": ("base", "hive", "queen", "models"),
    "checkout_path": ("base", "runtime", "hive"),
}
_DEFAULTS: Final = {"install_path": "/opt/rbee", "state_path": "/var/lib/rbee"}
_COPIED: Final = "copied_models"
_MADE: Final = ("releases", "packages", "current")  # in the install path
_PATHS: Final = (
    *(f"rbee_{place}" for name, roles in _FOLDERS.items() for place in (name, *(f"{role}_{name}" for role in roles))),
    *("rbee_binary_path", "rbee_hive_binary_path"),
)
_SYSTEM: Final = (
    *("/", "/bin", "/home", "/lib", "/opt", "/root", "/sbin", "/srv", "/usr", "/usr/local", "/var", "/var/lib"),
    *("/tmp", "/var/log"),  # noqa: S108 -- refused, not used
)
_SYSTEM_TREES: Final = ("/boot", "/dev", "/etc", "/proc", "/run", "/sys")


class Folder(NamedTuple):
    """A folder that roles fill: what it is for, its path, and the variable that sets it."""

    kind: str
    path: PurePosixPath
    variable: str

    def __str__(self) -> str:
        of = "the copied models' folder of " if self.kind == _COPIED else ""
        return f"{of}{self.variable} ({self.path})"


class Finding(NamedTuple):
    """What is wrong with the value of a variable, or with one entry of it, as a sentence."""

    variable: str
    value: Any
    message: str
    entry: Any = None


def check_values(variables: Mapping[str, Any], groups: tuple[str, ...]) -> Iterator[Finding]:
    """Yield what is wrong with the variables of a machine in these groups; a template is not judged."""
    for name, value in variables.items():
        if value is None or is_template(value):
            continue
        if (problem := _problem_of(name, value)) is not None:
            yield Finding(name, value, problem)
        for entry in value if name in _MODELS and isinstance(value, list) else ():
            if (problem := _model_problem(entry)) is not None:
                yield Finding(name, value, f"{name}: {problem}", entry)
    yield from _folder_problems(variables, groups)


def _problem_of(name: str, value: Any) -> str | None:
    if isinstance(value, str) and (found := control_character(value)) is not None:
        return f"{name} must not hold a control character ({found})."
    number = int(value) if isinstance(value, int | str) and re.fullmatch(r"-?\d+", str(value)) else None
    if name in _PORTS and (number is None or not 1 <= number <= 65535):
        return f"{name} must be a port from 1 to 65535, not {value!r}."
    if name in _COUNTS and (number is None or number < 1):
        return f"{name} must be 1 or more, not {value!r}."
    if name in _PATHS:
        return _path_problem(name, str(value))
    if name in _ADDRESSES and value != "" and not _is_address(value):
        return f"{name} must be an address such as http://192.0.2.10:8080, not {value!r}."
    return None


def _path_problem(name: str, value: str) -> str | None:
    path = PurePosixPath(value)
    if name in ("rbee_hive_binary_path", "rbee_hive_checkout_path") and value == "":  # for none of their own
        return None
    if not path.is_absolute():
        return f"{name} must be an absolute path, not {value!r}."
    if ".." in path.parts:
        return f"{name} must be a path without '..', not {value!r}."
    if str(path) in _SYSTEM or any(path.is_relative_to(tree) for tree in _SYSTEM_TREES):
        return f"{name} must be a folder of rbee's own, not {value!r}, which is the system's."
    return None


def _is_address(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(split_url(value)) and not re.search(r"\s", value)
    except RbeeError:
        return False


def _model_problem(reference: Any) -> str | None:
    if is_template(reference):
        return None
    if not isinstance(reference, str):
        return f"{reference!r} is not a model reference: it is not a text such as hf:org/repo."
    try:
        parse_reference(reference)
    except RbeeError as error:
        return error.message
    return None


def _folder_problems(variables: Mapping[str, Any], groups: tuple[str, ...]) -> Iterator[Finding]:
    """Yield where two roles have another folder for the same, and where a folder lies in another one."""
    folders = []
    for name in _FOLDERS:
        of_roles = list(_of_roles(name, variables, groups))
        if not of_roles:
            continue
        first = of_roles[0]
        if (other := next((folder for folder in of_roles if folder.path != first.path), None)) is not None:
            message = f"{first} and {other} differ, and all roles need one folder: set rbee_{name} alone."
            yield Finding(other.variable, str(other.path), message)
        elif _path_problem(first.variable, str(first.path)) is None:
            folders.append(first)
            if name == "state_path":
                folders.append(Folder(_COPIED, PurePosixPath(f"{first.path}-models"), first.variable))
    told = set()
    for first, other in combinations(folders, 2):
        pair = first.variable, other.variable
        if pair not in told and _collide(first, other):
            told.add(pair)
            same = first.path == other.path
            place = "is the same as" if same else "lies in" if other.path.is_relative_to(first.path) else "contains"
            blamed = other if other.variable in variables else first
            message = f"{other} {place} {first}; what one of them holds would be changed or removed with the other."
            yield Finding(blamed.variable, str(blamed.path), message)


def _of_roles(name: str, variables: Mapping[str, Any], groups: tuple[str, ...]) -> Iterator[Folder]:
    """Yield the folder of each role that runs on a machine of these groups, by the variable that decides it."""
    runs = {"base": True, "runtime": True, "hive": HIVES in groups, "models": HIVES in groups, "queen": QUEEN in groups}
    for role in _FOLDERS[name]:
        own, common = f"rbee_{role}_{name}", f"rbee_{name}"
        variable = common if variables.get(own) is None else own
        value = variables.get(variable, _DEFAULTS.get(name))
        if runs[role] and isinstance(value, str) and value and not is_template(value):
            yield Folder(name, PurePosixPath(value), variable)


def _collide(first: Folder, other: Folder) -> bool:
    """Return whether two folders are in each other; in the install path the checkout may lie beside what roles make."""
    if first.kind == "install_path" and other.kind == "checkout_path" and first.path in other.path.parents:
        return other.path.relative_to(first.path).parts[0] in _MADE
    return first.path.is_relative_to(other.path) or other.path.is_relative_to(first.path)
