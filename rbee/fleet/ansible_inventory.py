"""Ask Ansible which machines an inventory has, so that the keeper sees what every run will see.

`ansible-inventory` costs half a second; what it says of plain files is kept until one of them changes. A variable
with a template is resolved by a run of `read-inventory.yml`, which no machine is contacted for.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from rbee.config.atomic_write import atomic_write
from rbee.config.paths import Paths
from rbee.contracts.errors import ErrorCode
from rbee.errors import ConfigError, RbeeError
from rbee.fleet.assets import Assets
from rbee.fleet.causes import VAULT_HINT
from rbee.fleet.events import reason_in
from rbee.fleet.runner import PlaybookRun, environment, run
from rbee.programs import find_program

PROGRAM: Final = "ansible-inventory"
_WITHIN_S: Final = 120.0
_MAX_SOURCES: Final = 5000
_YAML_REASON: Final = re.compile(r"Failed to parse inventory with 'yaml' plugin: (.+?)(?:\n\n\[|\n\nFailed to|$)", re.S)
_SECRET: Final = re.compile(r"api_key|pass|token|secret")
_VOLATILE: Final = re.compile(r"\b(lookup|query|q|now)\(")  # what such a template gives may change without a file
_PLUGIN: Final = re.compile(r"^\s*plugin\s*:", re.MULTILINE)


class Host(NamedTuple):
    """A machine as Ansible sees it: its groups without `all`, and its variables as JSON values."""

    name: str
    groups: tuple[str, ...]
    variables: dict[str, Any]


def read_hosts(source: Path, paths: Paths, resolve: Iterable[str]) -> dict[str, Host]:
    """Return the machines of an inventory, by name, in Ansible's order.

    Args:
        source: a hosts file, or a folder of them.
        resolve: the variables whose templates are resolved; those of others stay as they are written.

    Raises:
        ConfigError: Ansible refuses the inventory; the message has its reason.
        RbeeError: Ansible is not installed.
    """
    wanted = tuple(resolve)
    state = _state_of(source)
    cache = paths.home / "cache" / "inventory.json"
    if state is not None and (kept := _kept(cache, state)) is not None:
        return kept
    listed = _ask(source, paths)
    if _VOLATILE.search(listed):
        state = None
    hosts = _parse(json.loads(listed))
    templated = [host.name for host in hosts.values() if any(is_template(host.variables.get(key)) for key in wanted)]
    for name, values in _resolved(source, paths, templated, wanted).items():
        hosts[name].variables.update(values)
    # A secret of the inventory is not written anywhere else.
    if state is not None and not any(_SECRET.search(key) for host in hosts.values() for key in host.variables):
        paths.make(cache.parent)
        atomic_write(cache, json.dumps({"state": state, "hosts": list(hosts.values())}), mode=0o600)
    return hosts


def is_template(value: object) -> bool:
    """Return whether a value has its meaning only when Ansible runs."""
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def is_open(value: object) -> bool:
    """Return whether a value, or anything in it, has its meaning only when Ansible runs."""
    if isinstance(value, Mapping):
        return any(map(is_open, value.values()))
    if isinstance(value, list):
        return any(map(is_open, value))
    return is_template(value)


def _ask(source: Path, paths: Paths) -> str:
    """Return the output of `ansible-inventory --list`."""
    program = find_program(PROGRAM)
    if program is None:
        raise RbeeError(
            ErrorCode.CONFIG_INVALID,
            "Ansible, which manages other machines, is not installed in the environment of rbee-keeper.",
            hint="pip install 'rbee[fleet]'",
        )
    # Without it Ansible leaves out what it cannot parse, and the machines in it.
    strict = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "True"}
    try:
        done = subprocess.run(
            [str(program), "-i", str(source.absolute()), "--list"],
            env={**os.environ, **environment(Assets.find(), paths), **strict},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        error = ConfigError(f"was not read by {PROGRAM} within {_WITHIN_S:g} s.", path=str(source))
        error.hint = f"A script or a plugin of it may hang; see: {PROGRAM} -i {source} --list"
        raise error from None
    if done.returncode == 0:
        return done.stdout.decode()
    text = done.stderr.decode("utf-8", "replace")
    found = _YAML_REASON.search(text)
    reason = found[1].strip() if found and source.suffix != ".ini" else reason_in(text)
    error = ConfigError(f"is refused by Ansible: {reason}", path=str(source))
    error.hint = VAULT_HINT if "vault" in reason.lower() else f"See all that it says: {PROGRAM} -i {source} --list"
    raise error


def _parse(listed: Mapping[str, Any]) -> dict[str, Host]:
    """Return the machines of the output of `ansible-inventory --list`."""
    hostvars: Mapping[str, Any] = listed.get("_meta", {}).get("hostvars", {})
    groups: dict[str, list[str]] = {}

    def members(group: str) -> list[str]:
        """Return the machines of a group and of those in it, each once."""
        if group not in groups:
            groups[group] = []  # Ansible refuses a circle of groups
            found = listed.get(group, {})
            named = [*found.get("hosts", []), *(host for child in found.get("children", []) for host in members(child))]
            groups[group] = list(dict.fromkeys(named))
        return groups[group]

    everything = members("all")
    return {
        name: Host(
            name,
            tuple(group for group, hosts in groups.items() if group not in ("all", "ungrouped") and name in hosts),
            {key: value for key, value in hostvars.get(name, {}).items() if key.startswith(("rbee_", "ansible_"))},
        )
        for name in everything
    }


def _resolved(source: Path, paths: Paths, names: list[str], wanted: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Have Ansible resolve the templates of some machines."""
    if not names:
        return {}
    plan = PlaybookRun("read-inventory", source, tuple(names), {"rbee_wanted": list(wanted)})
    result = run(
        plan, paths, hosts={name: name for name in names}, on_event=lambda _event: None, cancelled=lambda: False
    )
    found = {}
    for name in names:
        host = result.report.hosts[name]
        if "rbee_read" not in host.facts:
            raise ConfigError(
                f"a template of {name} cannot be resolved: {host.cause.message if host.cause else host.verdict}",
                path=str(source),
            )
        found[name] = {key: value for key, value in host.facts["rbee_read"].items() if value not in (None, "")}
    return found


def _sources(source: Path) -> Iterator[Path]:
    folder = source if source.is_dir() else source.parent
    roots = [folder] if source.is_dir() else [source, folder / "group_vars", folder / "host_vars"]
    for root in roots:
        if root.is_file():
            yield root
        elif root.is_dir():
            yield from (path for path in sorted(root.rglob("*")) if path.is_file())


def _state_of(source: Path) -> str | None:
    """Return what changes with any file of the inventory; None where what Ansible says may change without one."""
    seen = hashlib.sha256()
    for number, file in enumerate(_sources(source)):
        if number == _MAX_SOURCES or os.access(file, os.X_OK):
            return None
        try:
            if file.suffix in (".yml", ".yaml") and _PLUGIN.search(file.read_text(encoding="utf-8", errors="replace")):
                return None
            at = file.stat()
        except OSError:
            return None
        seen.update(f"{file.absolute()} {at.st_mtime_ns} {at.st_size} {at.st_ino}\n".encode())
    ours = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("ANSIBLE_"))
    seen.update(json.dumps([str(source.absolute()), *ours]).encode())
    return seen.hexdigest()


def _kept(cache: Path, state: str) -> dict[str, Host] | None:
    try:
        kept = json.loads(cache.read_text(encoding="utf-8"))
        if kept["state"] != state:
            return None
        return {name: Host(name, tuple(groups), variables) for name, groups, variables in kept["hosts"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
