"""Keep keys of clients, as hashes, and their usage in the queen's database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from rbee.contracts.keys import KeyInfo
from rbee.queen.keys.usage import Account, Usage
from rbee.queen.sql import SqlDatabase
from rbee.queen.tables import CLIENT_KEYS, KEY_USAGE


class KeyTable:
    """Rows of keys and of what was used with them."""

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

    async def usage_of(self, day: str) -> dict[str, Usage]:
        """Return what each client used on *day*, such as 2026-11-28."""
        statement = select(KEY_USAGE).where(KEY_USAGE.c.day == day)
        rows = await self._sql.run(lambda connection: connection.execute(statement).mappings().all())
        total: dict[str, Usage] = {}
        for row in rows:
            used = Usage(row["requests"], row["prompt_tokens"], row["cached_tokens"], row["answer_tokens"])
            total[row["client"]] = total.get(row["client"], Usage()) + used
        return total

    async def write(self, used: Mapping[Account, Usage], last_used: Mapping[str, int]) -> None:
        """Add what was used to the counts, and store when each key was used last, in one transaction."""

        def work(connection: Connection) -> None:
            for account, usage in used.items():
                _add(connection, account, usage)
            _touch(connection, last_used.items())

        try:
            await self._sql.run(work)
        except IntegrityError:  # another queen began the same row: now there is one to add to
            await self._sql.run(work)


def _values(key: KeyInfo) -> dict[str, Any]:
    return key.model_dump(mode="json", exclude={"requests_today", "tokens_today"})


def _row_of(name: str) -> Any:
    return delete(CLIENT_KEYS).where(CLIENT_KEYS.c.name == name)


def _add(connection: Connection, account: Account, usage: Usage) -> None:
    hashed = hashlib.sha256(account.model.encode("utf-8", "surrogatepass")).hexdigest()
    key = {"client": account.client, "model_sha256": hashed, "day": account.day}
    counts = usage.counts()
    changed = connection.execute(
        update(KEY_USAGE)
        .where(*(KEY_USAGE.c[name] == value for name, value in key.items()))
        .values({name: KEY_USAGE.c[name] + value for name, value in counts.items()})
    )
    if not changed.rowcount:
        connection.execute(insert(KEY_USAGE).values({**key, "model": account.model, **counts}))


def _touch(connection: Connection, last_used: Iterable[tuple[str, int]]) -> None:
    for name, at in last_used:
        connection.execute(update(CLIENT_KEYS).where(CLIENT_KEYS.c.name == name).values(last_used_unix=at))
