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
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from rbee.fleet.ansible_inventory import is_open
from rbee.fleet.assets import Assets
from rbee.fleet.inventory import Inventory, Node, load
from rbee.fleet.layout import HIVES, QUEEN
from rbee.fleet.problem import Problem, about, listed
from rbee.fleet.variable_lines import locate
from rbee.programs import find_program

_INVALID: Final = 78
_WITHIN_S: Final = 30.0
_AT_ONCE: Final = 4
_PLACED: Final = re.compile(r"-:(\d+): (.*)")  # file and line of what a program refuses
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
    problems: dict[tuple[str, int | None, str], Problem] = {}
    names: dict[tuple[str, int | None, str], list[str]] = defaultdict(list)
    for config, refused in asked.items():
        for setting, reason in refused.result():
            problem = _problem(inventory, setting, reason)
            problems[problem.file, problem.line, reason] = problem
            names[problem.file, problem.line, reason] += machines[config]
    return [replace(each, message=f"{each.message} ({listed(names[key])})") for key, each in problems.items()]


def _problem(inventory: Inventory, setting: Setting | None, reason: str) -> Problem:
    if setting is None:
        return Problem(str(inventory.path), None, reason)
    file, line = locate(inventory, setting.variable, setting.value, setting.key) or (str(inventory.path), None)
    name = setting.variable if setting.key is None else f"{setting.variable}.{setting.key}"
    return Problem(file, line, reason, about(name, setting.value))


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
    return [setting for setting in found.values() if not is_open(setting.value)]


def refusals(program: Path, daemon: Daemon, settings: Sequence[Setting]) -> list[tuple[Setting | None, str]]:
    """List what the daemon refuses of its settings, each with the setting that is wrong, where it is one alone."""
    left, found = list(settings), list[tuple[Setting | None, str]]()
    # What cannot be together is told once each setting is right.
    while reasons := _ask(program, "\n".join([f"[{daemon.table}]", *map(_line, left)]) + "\n"):
        placed = {int(at[1]) - 2: at[2] for reason in reasons if (at := _PLACED.match(reason))}
        wrong = {index: reason for index, reason in placed.items() if 0 <= index < len(left)}
        if not wrong:
            found.append((None, f"{daemon.program} refuses these settings together: {reasons[0]}"))
            break
        found += [(left[index], f"{left[index].variable}: {reason}") for index, reason in wrong.items()]
        left = [setting for index, setting in enumerate(left) if index not in wrong]
    return found


def _ask(program: Path, config: str) -> list[str]:
    """Return why the program refuses a config file; nothing where it does not, or cannot run here."""
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
        return []
    if done.returncode != _INVALID:
        return []
    return [line.removeprefix(f"{program.name}: ") for line in done.stderr.splitlines()] or ["no reason given"]


def _line(setting: Setting) -> str:
    return f"{json.dumps(setting.name)} = {json.dumps(setting.value)}"
