"""Change single values of a YAML file in its text, so that every comment, blank line and order stays as it was.

A parser gives the positions, and only the lines that must change are touched. Dumping a parsed file again would
move comments to other keys as soon as one is added or removed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from rbee.errors import ConfigError

_PLAIN = re.compile(r"[A-Za-z_/~.][A-Za-z0-9_./~@+-]*|\d+(?:\.\d+){2,}")
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "~", "y", "n"}
_INDENT = 2


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
        return [Entry(str(key.value), plain(value), key.start_mark.line + 1) for key, value in node.value]

    def put(self, value: object, *keys: str) -> None:
        """Set the scalar at a path, making what is missing on the way. *value* None makes an empty key.

        Raises:
            ConfigError: the place is written in flow style ({a: b}), which is left to people.
        """
        for depth in range(1, len(keys)):
            if self._node(keys[:depth]) is None:
                self._insert(keys[: depth - 1], keys[depth - 1], "")
        if self._node(keys) is None:
            self._insert(keys[:-1], keys[-1], "" if value is None else " " + scalar(value))
        elif value is not None and self.get(*keys) != value:
            self._replace(keys, scalar(value))

    def remove(self, *keys: str) -> bool:
        """Remove a key and its value, but no comment of its neighbours; return whether it was there."""
        parent = self._node(keys[:-1])
        if not isinstance(parent, MappingNode):
            return False
        for key, value in parent.value:
            if key.value == keys[-1]:
                self._reject_flow_style(parent)
                lines = self.text.splitlines(keepends=True)
                del lines[key.start_mark.line : _last_line(key, value) + 1]
                self._set("".join(lines))
                return True
        return False

    def _insert(self, parent_keys: tuple[str, ...], name: str, rest: str) -> None:
        parent = self._node(parent_keys)
        lines = self.text.splitlines(keepends=True)
        if isinstance(parent, MappingNode) and parent.value:
            self._reject_flow_style(parent)
            key, value = parent.value[-1]
            at, column = _last_line(key, value) + 1, key.start_mark.column
        elif not parent_keys:
            at, column = len(lines), 0
        else:
            # "hosts:" or "hosts: {}": the empty value goes, and the first child stands below it.
            key = self._key(parent_keys)
            at, column = key.start_mark.line + 1, key.start_mark.column + _INDENT
            if isinstance(parent, MappingNode):
                row = lines[key.start_mark.line]
                start, end = parent.start_mark.column, parent.end_mark.column
                lines[key.start_mark.line] = row[:start].rstrip() + row[end:]
        if at and at == len(lines) and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        lines.insert(at, f"{' ' * column}{scalar(name)}:{rest}\n")
        self._set("".join(lines))

    def _replace(self, keys: tuple[str, ...], new: str) -> None:
        node = self._node(keys)
        assert node is not None
        start, end = node.start_mark, node.end_mark
        if not isinstance(node, ScalarNode) or start.line != end.line:
            raise ConfigError(
                f"'{keys[-1]}' is not a single value on one line; change it by hand.",
                path=self.path,
                line=start.line + 1,
            )
        lines = self.text.splitlines(keepends=True)
        row = lines[start.line]
        if node.value == "" and start.column == end.column:
            # An empty value may be marked on a later line; it belongs behind its key.
            key = self._key(keys)
            row = lines[key.start_mark.line]
            colon = row.index(":", key.end_mark.column) + 1
            lines[key.start_mark.line] = f"{row[:colon]} {new}{row[colon:]}"
        else:
            lines[start.line] = row[: start.column] + new + row[end.column :]
        self._set("".join(lines))

    def _set(self, text: str) -> None:
        self.text = text
        self._parse()

    def _parse(self) -> None:
        try:
            root = YAML(typ="rt").compose(StringIO(self.text))
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark is not None else None
            raise ConfigError(f"is not YAML: {error.problem}", path=self.path, line=line) from error
        if root is not None and not isinstance(root, MappingNode):
            if isinstance(root, ScalarNode) and root.value == "":
                root = None
            else:
                raise ConfigError("must be a mapping of keys to values.", path=self.path, line=1)
        self.root = root
        if root is not None:
            _reject_duplicates(root, self.path)

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
                line=node.start_mark.line + 1,
            )


def scalar(value: object) -> str:
    """Write one value the way YAML reads it back as the same."""
    if not isinstance(value, str):
        return json.dumps(value)
    return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else json.dumps(value, ensure_ascii=False)


def plain(node: Node) -> Any:
    """Return what a node means, as plain Python; an encrypted or otherwise tagged value as None."""
    if isinstance(node, MappingNode):
        return {str(key.value): plain(value) for key, value in node.value}
    if isinstance(node, SequenceNode):
        return [plain(item) for item in node.value]
    tag = str(node.tag)
    if tag.endswith(":null") or not tag.startswith("tag:yaml.org"):
        return None
    if tag.endswith(":bool"):
        return node.value.lower() in ("true", "yes", "on")
    if tag.endswith(":int"):
        text = node.value.replace("_", "")
        return int(text, 8 if re.fullmatch(r"[-+]?0\d+", text) else 0)
    if tag.endswith(":float"):
        return float(node.value.replace("_", ""))
    return node.value


def _last_line(key: Node, value: Node) -> int:
    """Return the last line (from 0) that belongs to a key; comments after it belong to what follows."""
    if isinstance(value, MappingNode | SequenceNode) and not value.flow_style and value.value:
        last = value.value[-1]
        return _last_line(*last) if isinstance(value, MappingNode) else _last_line(last, last)
    if isinstance(value, ScalarNode) and value.style in ("|", ">"):
        # A block of text ends where the next thing begins; its mark stands there.
        return max(int(key.start_mark.line), int(value.end_mark.line) - 1)
    first, last = int(key.start_mark.line), int(value.end_mark.line)
    return max(first, last) if value.value else first


def _reject_duplicates(node: Node, path: str) -> None:
    if isinstance(node, MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                raise ConfigError(
                    f"'{name}' is defined here and on line {seen[name]}; keep one of them.", path=path, line=line
                )
            seen[name] = line
            _reject_duplicates(value, path)
    elif isinstance(node, SequenceNode):
        for item in node.value:
            _reject_duplicates(item, path)
