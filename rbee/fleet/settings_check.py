"""Check what an inventory sets of the daemons, by asking each daemon's own program, as the roles will on the machine.

Only what the inventory says is checked, and no value that has its meaning only when Ansible runs.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

from rbee.fleet.ansible_inventory import is_template
from rbee.fleet.assets import Assets
from rbee.fleet.inventory import Inventory, Node, load
from rbee.fleet.inventory_check import listed
from rbee.fleet.layout import HIVES, QUEEN
from rbee.fleet.schema import Problem
from rbee.fleet.yaml_edit import YamlDocument
from rbee.programs import find_program

_INVALID: Final = 78
_WITHIN_S: Final = 30.0
_AT_ONCE: Final = 4
_MOST_PROBLEMS: Final = 10
_PAIR: Final = re.compile(r"'(\w+)': (rbee_\w+)")


class Daemon(NamedTuple):
    """A daemon that a role configures: its program, its table in the config file, the machines that run it."""

    program: str
    table: str
    group: str

    @property
    def role(self) -> str:
        """The role, which is also the prefix of its variables."""
        return f"rbee_{self.table}"


DAEMONS: Final = (Daemon("rbee-hive", "hive", HIVES), Daemon("queen-rbee", "queen", QUEEN))


class Setting(NamedTuple):
    """A setting as the inventory has it: its variable and, in a mapping of settings, its key there."""

    name: str
    value: Any
    variable: str
    key: str | None = None


def check_settings(inventory: Inventory, assets: Assets) -> list[Problem]:
    """List what the daemons would refuse, once for all machines that have it; a daemon that is not here checks nothing.

    Raises ConfigError where Ansible refuses the inventory.
    """
    nodes = inventory.nodes(None)
    found: list[Problem] = []
    for daemon in DAEMONS:
        program = find_program(daemon.program)
        if program is not None:
            running = [node for node in nodes if daemon.group in node.groups]
            found += _check_daemon(inventory, daemon, program, running, variables_of(daemon, assets))
    return found


def _check_daemon(
    inventory: Inventory, daemon: Daemon, program: Path, nodes: Sequence[Node], variables: Mapping[str, str]
) -> list[Problem]:
    configs: dict[str, list[Setting]] = {}
    machines: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        if settings := settings_of(node, daemon, variables):
            config = "\n".join(map(_line, settings))
            configs[config] = settings
            machines[config].append(node.name)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        asked = {config: pool.submit(refusals, program, daemon, settings) for config, settings in configs.items()}
    # What several machines have from one place is told once.
    names: dict[tuple[str, int | None, str], list[str]] = defaultdict(list)
    for config, refused in asked.items():
        for setting, reason in refused.result():
            names[*_place_of(inventory, setting), reason] += machines[config]
    return [Problem(path, line, f"{reason} ({listed(found)})") for (path, line, reason), found in names.items()]


def variables_of(daemon: Daemon, assets: Assets) -> dict[str, str]:
    """Return the variables of a daemon's role that are settings of it, each with the setting's name."""
    text = load(assets.roles / daemon.role / "vars" / "main.yml").get(f"__{daemon.role}_config")
    return {variable: name for name, variable in _PAIR.findall(str(text))}


def settings_of(node: Node, daemon: Daemon, variables: Mapping[str, str]) -> list[Setting]:
    """Return what the inventory sets of a daemon on a machine, in the order in which the role combines it. Pure."""
    found = {
        name: Setting(name, node.variables[variable], variable)
        for variable, name in variables.items()
        if node.variables.get(variable) is not None
    }
    more = f"{daemon.role}_settings"
    others = node.variables.get(more)
    if isinstance(others, Mapping):
        found |= {str(key): Setting(str(key), value, more, str(key)) for key, value in others.items()}
    return [setting for setting in found.values() if not _is_open(setting.value)]


def refusals(program: Path, daemon: Daemon, settings: Sequence[Setting]) -> list[tuple[Setting | None, str]]:
    """List what the daemon refuses of its settings, each with the setting that is wrong, where it is one alone."""
    left, found = list(settings), list[tuple[Setting | None, str]]()
    while len(found) < _MOST_PROBLEMS:
        reason = _ask(program, "\n".join([f"[{daemon.table}]", *map(_line, left)]) + "\n")
        if reason is None:
            break
        at = re.match(r"-:(\d+): (.*)", reason, re.DOTALL)
        index = int(at[1]) - 2 if at else -1
        if at is None or not 0 <= index < len(left):
            found.append((None, f"{daemon.program} refuses these settings together: {reason}"))
            break
        wrong = left.pop(index)
        found.append((wrong, f"{wrong.variable}: {at[2]}"))
    return found


def _ask(program: Path, config: str) -> str | None:
    """Return why the program refuses a config file; None where it does not, or cannot run here."""
    try:
        done = subprocess.run(
            [program, "--check-config", "-"],
            input=config,
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != _INVALID:
        return None
    return (done.stderr.strip().splitlines() or ["no reason given"])[0].removeprefix(f"{program.name}: ")


def _line(setting: Setting) -> str:
    return f"{json.dumps(setting.name)} = {json.dumps(setting.value)}"


def _is_open(value: object) -> bool:
    """Return whether a value, or anything in it, has its meaning only when Ansible runs."""
    if isinstance(value, Mapping):
        return any(map(_is_open, value.values()))
    if isinstance(value, list):
        return any(map(_is_open, value))
    return is_template(value)


def _place_of(inventory: Inventory, setting: Setting | None) -> tuple[str, int | None]:
    place = None if setting is None else locate(inventory, setting.variable, setting.key)
    return (str(inventory.path), None) if place is None else place


def locate(inventory: Inventory, variable: str, key: str | None) -> tuple[str, int] | None:
    """Return file and line of a variable, or of a key in it, where the inventory's own files have it."""
    folders = [inventory.folder / kind for kind in ("group_vars", "host_vars")]
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.rglob("*")) if file.is_file()]
    for file in (*inventory.hosts_files(), *files):
        if file.suffix in (".yml", ".yaml", ".json", "") and not file.name.startswith("."):
            line = _line_in(load(file), (), variable, key)
            if line is not None:
                return str(file), line
    return None


def _line_in(text: YamlDocument, path: tuple[str, ...], variable: str, key: str | None) -> int | None:
    for entry in text.entries(*path):
        below = (*path, entry.name)
        if entry.name == variable and key is None:
            return entry.line
        if entry.name == variable:
            line = next((each.line for each in text.entries(*below) if each.name == key), None)
        else:
            line = _line_in(text, below, variable, key)
        if line is not None:
            return line
    return None
