"""Find the places of groups and hosts in a hosts file that is YAML, for edits."""

from __future__ import annotations

from typing import Final

from rbee.fleet.yaml_edit import YamlDocument

HIVES: Final = "rbee_hives"
QUEEN: Final = "rbee_queen"


class Layout:
    """The groups and hosts of one text; `lines` are those of the hosts, by name."""

    def __init__(self, text: YamlDocument) -> None:
        self._text = text
        self._groups: dict[str, tuple[str, ...]] = {}
        self._parents: dict[str, list[str]] = {}
        self._hosts: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        self.lines: dict[str, int] = {}
        for top in text.entries():
            self._walk((top.name,), None)

    def path_of(self, group: str) -> tuple[str, ...]:
        """Return the path of a group, where it is or where it should be made."""
        return self._groups.get(group, ("all", "children", group))

    def paths_of(self, host: str) -> list[tuple[str, ...]]:
        """List every place where a host stands."""
        return [path for _, path in self._hosts.get(host, [])]

    def groups_of(self, host: str) -> list[str]:
        """List the groups of a host, outer ones first, without `all`."""
        found: list[str] = []
        for group, _ in self._hosts.get(host, []):
            for name in (*self._ancestors(group), group):
                if name != "all" and name not in found:
                    found.append(name)
        return found

    def home_of(self, host: str) -> tuple[str, ...] | None:
        """Return the place where a host's variables stand, else its first place; None for an unknown host."""
        paths = self.paths_of(host)
        with_variables = [path for path in paths if self._text.entries(*path)]
        in_hives = [path for path in paths if path[-3:-1] == (HIVES, "hosts")]
        return next(iter([*with_variables, *in_hives, *paths]), None)

    def _walk(self, path: tuple[str, ...], parent: str | None) -> None:
        group = path[-1]
        # A group may be named in several places; the one with its hosts is its home.
        if group not in self._groups or self._text.has(*path, "hosts"):
            self._groups[group] = path
        if parent is not None:
            self._parents.setdefault(group, []).append(parent)
        for host in self._text.entries(*path, "hosts"):
            self._hosts.setdefault(host.name, []).append((group, (*path, "hosts", host.name)))
            self.lines.setdefault(host.name, host.line)
        for child in self._text.entries(*path, "children"):
            self._walk((*path, "children", child.name), group)

    def _ancestors(self, group: str, below: tuple[str, ...] = ()) -> list[str]:
        found: list[str] = []
        for parent in self._parents.get(group, []):
            if parent not in below:  # a circle, which Ansible refuses
                found += [*self._ancestors(parent, (*below, group)), parent]
        return found
