"""Keep the keys of clients: created, changed, found by what a client sends, and their last use written down.

Only the SHA-256 of a key is kept. A key has 256 random bits, so its hash reveals nothing, and a lookup by it in a
dictionary reveals nothing by its time either: it costs the same for one key and for a thousand.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from rbee.config.credentials import new_key, read_key
from rbee.config.paths import Paths
from rbee.contracts.errors import ErrorCode
from rbee.contracts.keys import KeyChange, KeyInfo, KeySpec
from rbee.contracts.patterns import NAME
from rbee.errors import RbeeError
from rbee.queen.database import Database
from rbee.queen.keys.access import ADMIN, Client
from rbee.queen.usage.store import WRITE_INTERVAL_S, UsageStore

if TYPE_CHECKING:
    from rbee.queen.keys.table import KeyTable

log = logging.getLogger(__name__)
LAST_USE_S: Final = 60


class ClientKeys:
    """The keys. *usage* counts what is used with them, *now* returns seconds since the epoch."""

    def __init__(
        self, database: Database, paths: Paths, usage: UsageStore, *, now: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._folder = paths.secrets / "clients"
        self._now = now
        self._keys: dict[str, KeyInfo] = {}
        self._clients: dict[str, tuple[Client, int | None]] = {}
        self._hashes: dict[str, str] = {}
        self._last_used: dict[str, int] = {}
        self._last_written: dict[str, int] = {}
        self._usage = usage

    async def load(self) -> None:
        """Read the keys, and take over those that are files of an earlier version.

        Raises ConfigError for such a file that others can read.
        """
        if self._database.opened is not None:
            for sha256, key in (await (await self._table()).all()).items():
                self._keep(sha256, key)
        files = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        for file in files:
            if re.match(NAME, file.name):
                if file.name not in self._keys:
                    await self._store(read_key(file), KeySpec(name=file.name))
                file.unlink()
                log.info("key taken into the database", extra={"fields": {"client": file.name}})

    def list(self) -> list[KeyInfo]:
        """List the keys by name, with what was used with them today."""
        return [self._shown(key) for _, key in sorted(self._keys.items())]

    async def add(self, spec: KeySpec) -> str:
        """Create a key and return it. Raises RbeeError INVALID_REQUEST for a taken name or an expiry in the past."""
        if spec.name == ADMIN.name:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"The name {spec.name} is that of the queen's own key.",
                hint="Choose another name; a key that may do the same: rbee-keeper keys add NAME --may operate",
                param="name",
            )
        if spec.name in self._keys:
            raise _taken(spec.name)
        if spec.expires_unix is not None and spec.expires_unix <= self._now():
            raise RbeeError(
                ErrorCode.INVALID_REQUEST, "expires_unix: this time has passed already.", param="expires_unix"
            )
        key = new_key()
        await self._store(_hashed(key), spec)
        return key

    async def change(self, change: KeyChange) -> KeyInfo:
        """Change what a key allows; return it. Raises RbeeError KEY_NOT_FOUND."""
        known = self._require(change.name)
        fields = change.model_dump(include=change.model_fields_set)
        changed = KeyInfo.model_validate({**known.model_dump(), **fields})
        await (await self._table()).change(changed)
        self._keep(self._hashes[change.name], changed)
        return self._shown(changed)

    async def remove(self, name: str) -> None:
        """Revoke the key of *name*. Raises RbeeError KEY_NOT_FOUND."""
        self._require(name)
        await (await self._table()).remove(name)
        del self._keys[name]
        del self._clients[self._hashes.pop(name)]
        self._last_used.pop(name, None)

    def find(self, _path: str, key: str) -> Client | None:
        """Return the client whose *key* it is. Raises RbeeError INVALID_API_KEY for one that has expired."""
        return self._valid(_hashed(key))

    def named(self, name: str) -> Client | None:
        """Return the client of that name. Raises RbeeError INVALID_API_KEY where its key has expired."""
        return self._valid(self._hashes.get(name, ""))

    def _valid(self, sha256: str) -> Client | None:
        found = self._clients.get(sha256)
        if found is None:
            return None
        client, expires_unix = found
        now = int(self._now())
        if expires_unix is not None and expires_unix <= now:
            at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(expires_unix))
            raise RbeeError(
                ErrorCode.INVALID_API_KEY,
                f"The key of {client.name} has expired ({at}).",
                details={"client": client.name, "expired_unix": expires_unix},
                hint="Ask the operator for a new one, or for more time: rbee-keeper keys set NAME --expires 30d",
            )
        self._last_used[client.name] = now
        return client

    async def keep_writing(self) -> None:
        """Write the last uses into the database now and then, without an end."""
        while True:
            await asyncio.sleep(WRITE_INTERVAL_S)
            await self.write()

    async def write(self, *, last: bool = False) -> None:
        """Write the last uses of keys, of each once a minute, or now if it is the *last* time.

        Without a database, which exists once there is a key, there is nothing to write.
        """
        if self._database.opened is None:
            return
        step = 1 if last else LAST_USE_S
        uses = {
            name: at for name, at in self._last_used.items() if at - self._last_written.get(name, -LAST_USE_S) >= step
        }
        if not uses:
            return
        try:
            await (await self._table()).touch(uses)
        except RbeeError as error:
            log.error("last uses of keys not written", extra={"fields": {"reason": error.message}})
            return
        self._last_written.update(uses)

    async def _store(self, sha256: str, spec: KeySpec) -> None:
        key = KeyInfo(**spec.model_dump(), created_unix=int(self._now()))
        if not await (await self._table()).add(sha256, key):
            raise _taken(spec.name)
        self._keep(sha256, key)

    def _keep(self, sha256: str, key: KeyInfo) -> None:
        client = Client(
            key.name,
            frozenset(key.rights),
            None if key.models is None else frozenset(key.models),
            key.max_priority,
            key.max_tasks,
            key.tokens_per_day,
        )
        self._keys[key.name] = key
        self._hashes[key.name] = sha256
        self._clients[sha256] = client, key.expires_unix

    def _shown(self, key: KeyInfo) -> KeyInfo:
        today = self._usage.today(key.name)
        last = self._last_used.get(key.name, key.last_used_unix)
        update = {"requests_today": today.requests, "tokens_today": today.tokens, "last_used_unix": last}
        return key.model_copy(update=update)

    def _require(self, name: str) -> KeyInfo:
        known = self._keys.get(name)
        if known is None:
            names = ", ".join(sorted(self._keys)) or "none"
            raise RbeeError(ErrorCode.KEY_NOT_FOUND, f"There is no key for {name}. Existing keys: {names}.")
        return known

    async def _table(self) -> KeyTable:
        from rbee.queen.keys.table import KeyTable

        return KeyTable(await self._database.require())


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _taken(name: str) -> RbeeError:
    return RbeeError(
        ErrorCode.INVALID_REQUEST,
        f"There is already a key for {name}.",
        hint=f"Choose another name, change it (rbee-keeper keys set {name}), or remove it first: "
        f"rbee-keeper keys remove {name}",
        param="name",
    )
