"""Change single values of a YAML file in its text, so that every comment, blank line and order stays as it was.

A parser gives the positions, and only the lines that must change are touched. Dumping a parsed file again would
move comments to other keys as soon as one is added or removed. What an edit changed beside its own key (an alias, an
anchor) is noticed before anything is written, and refused.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml.error import StringMark
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from rbee.errors import ConfigError
from rbee.fleet.yaml_values import parse, plain, scalar

_INDENT = 2


class _UnparsableError(Exception):
    """An edit after which the text is no YAML: it cut what something else needs."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of a mapping with its value, and the line (from 1) on which it stands."""

    name: str
    value: Any
    line: int


@dataclass(slots=True)
class YamlDocument:
    """The text of one file, and what it means now. *path* is for messages."""

    text: str
    path: str
    root: MappingNode | None = field(init=False)

    def __post_init__(self) -> None:
        """Parse. Raises ConfigError with the line where the text is not YAML or not a mapping."""
        self._parse()

    def get(self, *keys: str) -> Any:
        """Return the value at a path of keys as plain Python; None if there is none."""
        node = self._node(keys)
        return None if node is None else plain(node)

    def has(self, *keys: str) -> bool:
        """Return whether the path of keys exists, also with nothing in it."""
        return self._node(keys) is not None

    def entries(self, *keys: str) -> list[Entry]:
        """List the keys of the mapping at a path; empty if there is none."""
        node = self._node(keys)
        if not isinstance(node, MappingNode):
            return []
        return [Entry(str(key.value), plain(value), self._row(key.start_mark) + 1) for key, value in node.value]

    def line(self, *path: str | int) -> int:
        """Return the line of a value at a path of keys and of numbers in lists, or of the last part that is there."""
        node: Node | None = self.root
        line = 1
        for part in path:
            if isinstance(node, MappingNode):
                key, node = next(((key, value) for key, value in node.value if key.value == part), (None, None))
            elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
                key = node = node.value[part]
            else:
                key = None
            if key is None:
                break
            line = self._row(key.start_mark) + 1
        return line

    def put(self, value: object, *keys: str) -> None:
        """Set the scalar at a path, making what is missing on the way. *value* None makes an empty key.

        Raises:
            ConfigError: the place is written in a way that is left to people: in flow style ({a: b}), or by an alias.
        """
        wanted = copy.deepcopy(self.get() or {})
        at = wanted
        for key in keys[:-1]:
            if not isinstance(at.get(key), dict):
                at[key] = {}
            at = at[key]
        if value is not None or keys[-1] not in at:
            at[keys[-1]] = value
        with self._checked(wanted, keys):
            for depth in range(1, len(keys)):
                if self._node(keys[:depth]) is None:
                    self._insert(keys[: depth - 1], keys[depth - 1], "")
            if self._node(keys) is None:
                self._insert(keys[:-1], keys[-1], "" if value is None else " " + scalar(value))
            elif value is not None and self.get(*keys) != value:
                self._replace(keys, scalar(value))

    def remove(self, *keys: str) -> bool:
        """Remove a key and its value, but no comment of its neighbours; return whether it was there.

        Raises ConfigError where that is left to people: in flow style, or for an anchor that is used elsewhere.
        """
        parent = self._node(keys[:-1])
        if not isinstance(parent, MappingNode):
            return False
        found = [pair for pair in parent.value if pair[0].value == keys[-1]]
        if not found:
            return False
        wanted = copy.deepcopy(self.get())
        at = wanted
        for name in keys[:-1]:
            at = at[name]
        del at[keys[-1]]
        self._reject_flow_style(parent)
        key, value = found[0]
        with self._checked(wanted, keys):
            lines = self._lines()
            del lines[self._row(key.start_mark) : self._last_row(key, value) + 1]
            self._set("".join(lines))
        return True

    @contextmanager
    def _checked(self, wanted: dict[str, Any], keys: tuple[str, ...]) -> Iterator[None]:
        """Make an edit, or, where its outcome is not *wanted*, raise ConfigError with the text as it was."""
        before, line = self.text, 1
        for depth in range(1, len(keys) + 1):
            if (node := self._node(keys[:depth])) is None:
                break
            key = self._key(keys[:depth])
            line = self._row(key.start_mark) + 1
            if node.start_mark.index < key.start_mark.index:
                break  # an alias: what is below it stands elsewhere
        try:
            yield
            as_wanted = _without_empty(self.get()) == _without_empty(wanted)
        except _UnparsableError:
            as_wanted = False
        except ConfigError:
            self._set(before)
            raise
        if not as_wanted:
            self._set(before)
            raise ConfigError(
                f"'{keys[-1]}' cannot be changed here without changing something else (an alias or an anchor); "
                "change it by hand.",
                path=self.path,
                line=line,
            )

    def _insert(self, parent_keys: tuple[str, ...], name: str, rest: str) -> None:
        parent = self._node(parent_keys)
        lines = self._lines()
        if isinstance(parent, MappingNode) and parent.value:
            self._reject_flow_style(parent)
            key, value = parent.value[-1]
            at, column = self._last_row(key, value) + 1, self._column(key.start_mark)
        elif not parent_keys:
            at, column = len(lines), 0
        else:
            # "hosts:" or "hosts: {}": the empty value goes, and the first child stands below it.
            key = self._key(parent_keys)
            row = self._row(key.start_mark)
            at, column = row + 1, self._column(key.start_mark) + _INDENT
            if isinstance(parent, MappingNode):
                start, end = self._column(parent.start_mark), self._column(parent.end_mark)
                lines[row] = lines[row][:start].rstrip() + lines[row][end:]
        if at and at == len(lines) and not lines[-1].endswith("\n"):
            lines[-1] += self._line_end
        lines.insert(at, f"{' ' * column}{scalar(name)}:{rest}{self._line_end}")
        self._set("".join(lines))

    def _replace(self, keys: tuple[str, ...], new: str) -> None:
        node = self._node(keys)
        assert node is not None
        start, end = node.start_mark, node.end_mark
        if not isinstance(node, ScalarNode) or self._row(start) != self._row(end):
            raise ConfigError(
                f"'{keys[-1]}' is not a single value on one line; change it by hand.",
                path=self.path,
                line=self._row(start) + 1,
            )
        if node.value == "" and start.index == end.index:
            # An empty value may be marked on a later line; it belongs behind its key.
            colon = self.text.index(":", self._key(keys).end_mark.index) + 1
            self._set(f"{self.text[:colon]} {new}{self.text[colon:]}")
        else:
            self._set(self.text[: start.index] + new + self.text[end.index :])

    # Positions are counted in characters: the parser takes more for ends of lines than a file has lines.

    @property
    def _line_end(self) -> str:
        first = self.text.find("\n")
        return "\r\n" if first > 0 and self.text[first - 1] == "\r" else "\n"

    def _lines(self) -> list[str]:
        return re.findall(r"[^\n]*\n|[^\n]+", self.text)

    def _row(self, mark: StringMark) -> int:
        return self.text.count("\n", 0, mark.index)

    def _column(self, mark: StringMark) -> int:
        return int(mark.index) - (self.text.rfind("\n", 0, mark.index) + 1)

    def _last_row(self, key: Node, value: Node) -> int:
        """Return the last row (from 0) that belongs to a key; comments after it belong to what follows."""
        first = self._row(key.start_mark)
        if value.start_mark.index < key.start_mark.index:
            return first  # an alias: its value stands elsewhere
        if isinstance(value, MappingNode | SequenceNode) and not value.flow_style and value.value:
            last = value.value[-1]
            return self._last_row(*last) if isinstance(value, MappingNode) else self._last_row(last, last)
        last_row = self._row(value.end_mark)
        if isinstance(value, ScalarNode) and value.style in ("|", ">"):
            # A block of text ends where the next thing begins; its mark stands there.
            return max(first, last_row - 1)
        return max(first, last_row) if value.value else first

    def _set(self, text: str) -> None:
        self.text = text
        try:
            self._parse()
        except ConfigError as error:
            raise _UnparsableError from error

    def _parse(self) -> None:
        self.root = parse(self.text, self.path)

    def _node(self, keys: tuple[str, ...]) -> Node | None:
        node: Node | None = self.root
        for name in keys:
            if not isinstance(node, MappingNode):
                return None
            node = next((value for key, value in node.value if key.value == name), None)
        return node

    def _key(self, keys: tuple[str, ...]) -> Node:
        parent = self._node(keys[:-1])
        assert isinstance(parent, MappingNode)
        found: Node = next(key for key, _ in parent.value if key.value == keys[-1])
        return found

    def _reject_flow_style(self, node: MappingNode) -> None:
        if node.flow_style:
            raise ConfigError(
                "is in flow style ({key: value}), which cannot be edited here; write one key on each line.",
                path=self.path,
                line=self._row(node.start_mark) + 1,
            )


def _without_empty(value: Any) -> Any:
    """Return *value* with None for mappings without keys: `hosts:` and `hosts: {}` are the same."""
    if isinstance(value, dict):
        return {key: _without_empty(each) for key, each in value.items()} or None
    return [_without_empty(each) for each in value] if isinstance(value, list) else value
