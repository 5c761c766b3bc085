"""Find the line on which an inventory's own files set a variable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rbee.errors import ConfigError
from rbee.fleet.inventory import Inventory, load
from rbee.fleet.yaml_edit import YamlDocument


def locate(inventory: Inventory, variable: str, value: Any, key: str | None = None) -> tuple[str, int] | None:
    """Return file and line of a variable, or of a key in it, where it has this *value*, else where it is set first."""
    first = None
    for file in (*inventory.hosts_files(), *inventory.variable_files()):
        try:
            text = load(file)
        except ConfigError:
            continue  # Ansible may read what is no YAML
        for line, found in _places(text, (), variable, key):
            if found == value:
                return str(file), line
            first = first or (str(file), line)
    return first


def _places(text: YamlDocument, path: tuple[str, ...], variable: str, key: str | None) -> Iterator[tuple[int, Any]]:
    for entry in text.entries(*path):
        below = (*path, entry.name)
        if entry.name != variable:
            yield from _places(text, below, variable, key)
        elif key is None:
            yield entry.line, entry.value
        else:
            yield from ((each.line, each.value) for each in text.entries(*below) if each.name == key)
