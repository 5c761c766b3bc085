"""Read YAML as Ansible does, to nodes with their positions and to plain values, and write single values."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from rbee.errors import ConfigError

_MAX_VALUES: Final = 200_000  # aliases of aliases double with each level
_PLAIN: Final = re.compile(r"[A-Za-z_/~.][A-Za-z0-9_./~@+-]*|\d+(?:\.\d+){2,}")
_WORDS: Final = {"true", "false", "yes", "no", "on", "off", "null", "~", "y", "n"}


def scalar(value: object) -> str:
    """Write one value the way YAML reads it back as the same."""
    if not isinstance(value, str):
        return json.dumps(value)
    return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else json.dumps(value, ensure_ascii=False)


def parse(text: str, path: str) -> MappingNode | None:
    """Return the mapping that *text* is, None for a text without anything in it; *path* is for messages.

    Raises ConfigError, with the line, for what is no YAML or no mapping, for a key that is there twice, and for aliases
    that never end.
    """
    try:
        root = YAML(typ="rt").compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else None
        raise ConfigError(f"is not YAML: {error.problem}", path=path, line=line) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        reason = f"it holds the character U+{error.character:04X}; write it as an escape, or remove it."
        raise ConfigError(f"is not YAML: {reason}", path=path, line=line) from error
    except RecursionError as error:
        raise ConfigError("is nested too deeply to be read.", path=path) from error
    except YAMLError as error:
        raise ConfigError(f"is not YAML: {str(error).strip().splitlines()[0]}", path=path) from error
    if root is None or (isinstance(root, ScalarNode) and root.value == ""):
        return None
    if not isinstance(root, MappingNode):
        raise ConfigError("must be a mapping of keys to values.", path=path, line=1)
    _reject_endless(root, path)
    _reject_duplicates(root, path, set())
    return root


def plain(node: Node) -> Any:
    """Return what a node means, as plain Python."""
    if isinstance(node, MappingNode):
        return {str(key.value): plain(value) for key, value in node.value}
    if isinstance(node, SequenceNode):
        return [plain(item) for item in node.value]
    return _plain_scalar(node) if isinstance(node, ScalarNode) else None


def _plain_scalar(node: ScalarNode) -> Any:
    """Return what a scalar means, as plain Python; an encrypted or otherwise tagged value as None."""
    tag = str(node.tag)
    if tag.endswith(":null") or not tag.startswith("tag:yaml.org"):
        return None
    if tag.endswith(":bool"):
        return node.value.lower() in ("true", "yes", "on")
    if tag.endswith(":int"):
        text = node.value.replace("_", "")
        try:
            return int(text, 8 if re.fullmatch(r"[-+]?0\d+", text) else 0)
        except ValueError:
            return node.value
    if tag.endswith(":float"):
        return float(node.value.replace("_", ""))
    return node.value


def _reject_endless(root: Node, path: str) -> None:
    """Raise ConfigError for aliases that refer to themselves, or stand for more values than an inventory has."""
    count = 0

    def walk(node: Node, above: tuple[int, ...]) -> None:
        nonlocal count
        count += 1
        if count > _MAX_VALUES or id(node) in above:
            what = "refers to itself" if id(node) in above else f"stands for more than {_MAX_VALUES} values"
            raise ConfigError(f"an alias {what}.", path=path, line=node.start_mark.line + 1)
        if isinstance(node, MappingNode | SequenceNode):
            inner = [value for _, value in node.value] if isinstance(node, MappingNode) else node.value
            for each in inner:
                walk(each, (*above, id(node)))

    walk(root, ())


def _reject_duplicates(node: Node, path: str, done: set[int]) -> None:
    if id(node) in done:
        return
    done.add(id(node))
    if isinstance(node, MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen:
                raise ConfigError(
                    f"'{name}' is defined here and on line {seen[name]}; keep one of them.", path=path, line=line
                )
            seen[name] = line
            _reject_duplicates(value, path, done)
    elif isinstance(node, SequenceNode):
        for item in node.value:
            _reject_duplicates(item, path, done)
