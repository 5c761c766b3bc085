"""Open the queen's database when it is first needed.

A home in which nothing was ever stored has no database, and a queen that needs none does not load SQLAlchemy, which
takes as long as the rest of its start together.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rbee.config.paths import Paths
from rbee.errors import RbeeError

if TYPE_CHECKING:
    from rbee.queen.sql import SqlDatabase


class Database:
    """The queen's database, open or not yet.

    Args:
        database_url: any URL of SQLAlchemy; None means `beehives.db` in the home.
    """

    def __init__(self, database_url: str | None, paths: Paths) -> None:
        self._database_url = database_url
        self._file = paths.home / "beehives.db"
        self._opening = asyncio.Lock()
        self.opened: SqlDatabase | None = None

    async def open(self) -> None:
        """Open the database if there is one.

        Raises RbeeError STATE_CORRUPT for a broken one, DISK_FULL or PERMISSION_DENIED, ConfigError for a URL that
        cannot be used.
        """
        if self._database_url is not None or self._file.exists():
            await self.require()

    async def require(self) -> SqlDatabase:
        """Return the database, created where there is none. Raises as `open` does."""
        async with self._opening:
            if self.opened is None:
                sql = await asyncio.to_thread(self._load)
                try:
                    await sql.open()
                except RbeeError:
                    await sql.close()
                    raise
                self.opened = sql
        return self.opened

    def _load(self) -> SqlDatabase:
        """Load SQLAlchemy: in a thread, because requests may be served already."""
        from rbee.queen.sql import SqlDatabase

        url = self._database_url
        return SqlDatabase.in_file(self._file) if url is None else SqlDatabase.at(url)

    async def close(self) -> None:
        """Close it."""
        if self.opened is not None:
            await self.opened.close()
