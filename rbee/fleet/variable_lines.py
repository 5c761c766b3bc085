"""Find the line on which an inventory's own files set a variable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rbee.errors import ConfigError
from rbee.fleet.inventory import Inventory, load
from rbee.fleet.yaml_edit import YamlDocument


def locate(inventory: Inventory, variable: str, value: Any, key: str | None = None) -> tuple[str, int] | None:
    """Return file and line of a variable, or of a key in it, where it has this *value*, else where it is set first."""
    first = None
    for text, path, found in _places(inventory, variable):
        places = [(path, found)] if key is None else [((*path, key), found[key])] if _has(found, key) else []
        for place, there in places:
            if there == value:
                return text.path, text.line(*place)
            first = first or (text.path, text.line(*place))
    return first


def locate_in(inventory: Inventory, variable: str, value: Any, path: Sequence[str | int]) -> tuple[str, int] | None:
    """Return file and line of what is at *path*, keys and numbers in lists, in a variable that has this *value*.

    Of what is written elsewhere, it is the line of the last part that is there.
    """
    for text, place, found in _places(inventory, variable):
        if found == value:
            return text.path, text.line(*place, *path)
    return None


def _has(value: Any, key: str) -> bool:
    return isinstance(value, dict) and key in value


def _places(inventory: Inventory, variable: str) -> Iterator[tuple[YamlDocument, tuple[str, ...], Any]]:
    """Yield every place of a variable in the files: the file, the path of keys to it, and its value."""
    for file in (*inventory.hosts_files(), *inventory.variable_files()):
        try:
            text = load(file)
        except ConfigError:
            continue  # Ansible may read what is no YAML
        yield from ((text, path, value) for path, value in _below(text, (), variable))


def _below(text: YamlDocument, path: tuple[str, ...], variable: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for entry in text.entries(*path):
        below = (*path, entry.name)
        if entry.name == variable:
            yield below, entry.value
        else:
            yield from _below(text, below, variable)
