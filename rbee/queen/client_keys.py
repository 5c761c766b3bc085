"""Keep keys for clients that may run inference and nothing else: one for each person or program, as hashes."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

from rbee.config.credentials import new_key, read_key, store_key
from rbee.config.paths import Paths
from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import CLIENT_NAME
from rbee.daemonkit.auth import OPERATOR
from rbee.errors import RbeeError

# What a client may call: inference, and the list of models.
_OPEN: Final = ("/v1/", "/v2/tasks")
_CLOSED: Final = ("/v1/admin/",)


class ClientKeys:
    """The clients and the hashes of their keys, a file of mode 0600 each; a key itself is shown once and not kept."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._folder = paths.secrets / "clients"
        self._hashes: dict[str, str] = {}

    def load(self) -> None:
        """Read what is there. Raises ConfigError for a file that others can read."""
        files = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        self._hashes = {file.name: read_key(file) for file in files if re.match(CLIENT_NAME, file.name)}

    def names(self) -> list[str]:
        """List the clients."""
        return sorted(self._hashes)

    def add(self, name: str) -> str:
        """Create a key for *name* and return it. Raises RbeeError INVALID_REQUEST for a taken or reserved name."""
        if name in self._hashes or name == OPERATOR:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"There is already a key for {name}.",
                hint=f"Choose another name, or remove that key first: rbee-keeper keys remove {name}",
                param="name",
            )
        key = new_key()
        self._paths.make(self._folder)
        self._hashes[name] = store_key(self._folder / name, _hashed(key), replace=True)
        return key

    def remove(self, name: str) -> bool:
        """Revoke the key of *name*; return whether there was one."""
        (self._folder / name).unlink(missing_ok=True)
        return self._hashes.pop(name, None) is not None

    def owner(self, path: str, key: str) -> str | None:
        """Return the client whose *key* it is if it opens *path*."""
        if not path.startswith(_OPEN) or path.startswith(_CLOSED):
            return None
        given = _hashed(key)
        # Every hash is compared, so that the time reveals nothing about them.
        owners = [name for name, known in self._hashes.items() if hmac.compare_digest(known, given)]
        return owners[0] if owners else None


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
