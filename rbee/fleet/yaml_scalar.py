"""Read and write single values of YAML as Ansible does."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from ruamel.yaml.nodes import ScalarNode

_PLAIN: Final = re.compile(r"[A-Za-z_/~.][A-Za-z0-9_./~@+-]*|\d+(?:\.\d+){2,}")
_WORDS: Final = {"true", "false", "yes", "no", "on", "off", "null", "~", "y", "n"}


def scalar(value: object) -> str:
    """Write one value the way YAML reads it back as the same."""
    if not isinstance(value, str):
        return json.dumps(value)
    return value if _PLAIN.fullmatch(value) and value.lower() not in _WORDS else json.dumps(value, ensure_ascii=False)


def plain_scalar(node: ScalarNode) -> Any:
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
