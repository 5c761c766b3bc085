"""The keys of the hives: made on first use, one file of mode 0600 for each, never in arguments or artefacts.

The roles look the files up by themselves (`lookup('ansible.builtin.password', ...)`), so that a plain
`ansible-playbook` uses and makes the same keys; a run only needs `RBEE_HOME` in its environment.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from rbee.config.credentials import new_key, read_key, store_key
from rbee.config.paths import Paths
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

_NODE_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


def is_node_name(name: str) -> bool:
    """Return whether a node may have this name, which is that of the file of its key too."""
    return _NODE_NAME.fullmatch(name) is not None


def require_node_name(name: str) -> None:
    """Raise RbeeError INVALID_REQUEST for a name that cannot be a node's."""
    if not is_node_name(name):
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{name!r} cannot be the name of a node.",
            hint="Use letters, digits, dots, dashes and underscores; the first and the last a letter or digit.",
            param="node",
        )


def hive_key_file(paths: Paths, node: str) -> Path:
    """Return where the key of a node's hive is kept. Raises RbeeError for a name that cannot be a node's."""
    require_node_name(node)
    return paths.secrets / "hives" / node


def hive_key(paths: Paths, node: str) -> str | None:
    """Read the key of a node's hive; None if none was made. Raises ConfigError if others can read it."""
    file = hive_key_file(paths, node)
    return read_key(file) if file.exists() else None


def ensure_hive_key(paths: Paths, node: str) -> str:
    """Read the key of a node's hive, or make it; two at once agree on one."""
    file = hive_key_file(paths, node)
    if file.exists():
        return read_key(file)
    paths.make(file.parent)
    return store_key(file, new_key(), replace=False)


def delete_hive_key(paths: Paths, node: str) -> bool:
    """Delete the key of a node that is gone; return whether there was one."""
    file = hive_key_file(paths, node)
    existed = file.exists()
    file.unlink(missing_ok=True)
    return existed
