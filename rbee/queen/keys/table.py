"""Keep keys of clients, as hashes, in the queen's database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from rbee.contracts.keys import KeyInfo
from rbee.queen.sql import SqlDatabase
from rbee.queen.tables import CLIENT_KEYS


class KeyTable:
    """Rows of keys."""

    def __init__(self, sql: SqlDatabase) -> None:
        self._sql = sql

    async def all(self) -> dict[str, KeyInfo]:
        """Return every key by the SHA-256 of what its client sends."""
        rows = await self._sql.run(lambda connection: connection.execute(select(CLIENT_KEYS)).mappings().all())
        return {row["sha256"]: KeyInfo.model_validate({k: row[k] for k in row if k != "sha256"}) for row in rows}

    async def add(self, sha256: str, key: KeyInfo) -> bool:
        """Store a key; return False where its name is taken."""
        values = {"sha256": sha256, **_values(key)}
        try:
            await self._sql.run(lambda connection: connection.execute(insert(CLIENT_KEYS).values(values)).rowcount)
        except IntegrityError:
            return False
        return True

    async def change(self, key: KeyInfo) -> None:
        """Store what a key allows now."""
        statement = update(CLIENT_KEYS).where(CLIENT_KEYS.c.name == key.name).values(_values(key))
        await self._sql.run(lambda connection: connection.execute(statement).rowcount)

    async def remove(self, name: str) -> None:
        """Remove a key; what was used with it stays."""
        await self._sql.run(lambda connection: connection.execute(_row_of(name)).rowcount)

    async def touch(self, last_used: Mapping[str, int]) -> None:
        """Store when each key was used last, in one transaction."""

        def work(connection: Connection) -> None:
            for name, at in last_used.items():
                connection.execute(update(CLIENT_KEYS).where(CLIENT_KEYS.c.name == name).values(last_used_unix=at))

        await self._sql.run(work)


def _values(key: KeyInfo) -> dict[str, Any]:
    return key.model_dump(mode="json", exclude={"requests_today", "tokens_today"})


def _row_of(name: str) -> Any:
    return delete(CLIENT_KEYS).where(CLIENT_KEYS.c.name == name)
