"""Run statements in any SQL database, off the event loop.

A module of its own, because importing SQLAlchemy takes as long as the rest of a queen's start together.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Select, create_engine, event, inspect, select, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, NoSuchModuleError, OperationalError
from sqlalchemy.schema import CreateColumn

from rbee.config.database_errors import database_error
from rbee.contracts.errors import ErrorCode
from rbee.errors import ConfigError, RbeeError
from rbee.observe.redaction import Redactor, secrets_in_url
from rbee.queen.tables import BEEHIVES, CLIENT_KEYS, KEY_USAGE, METADATA, SERVED_MODELS

R = TypeVar("R")


class SqlDatabase:
    """A database with the queen's tables. Open it once; its statements run in threads, one transaction at a time."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._redactor = Redactor(secrets_in_url(url.render_as_string(hide_password=False)))
        self._engine = create_engine(url)
        self._lock = threading.Lock()
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)

    @classmethod
    def at(cls, database_url: str) -> SqlDatabase:
        """Use the database at a URL. Raises ConfigError for one that SQLAlchemy does not understand."""
        try:
            return cls(make_url(database_url))
        # ValueError: a port that is no number, which may be a part of a password with a colon.
        except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
            raise ConfigError(
                "database_url is not a URL that SQLAlchemy can open, such as sqlite:////path/beehives.db "
                f"or postgresql+psycopg://user@host/name ({type(error).__name__})."
            ) from error

    @classmethod
    def in_file(cls, path: Path) -> SqlDatabase:
        """Use the SQLite database in a file."""
        return cls(URL.create("sqlite", database=str(path)))

    async def open(self) -> None:
        """Create the tables that are missing, and in those of an earlier version the columns.

        Raises RbeeError: STATE_CORRUPT, DISK_FULL or PERMISSION_DENIED.
        """
        await self.run(METADATA.create_all)
        await self.run(_add_columns)
        for whole in (select(BEEHIVES), select(CLIENT_KEYS), select(KEY_USAGE).limit(1), select(SERVED_MODELS)):
            await self.run(partial(_read, whole))

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self._engine.dispose)

    async def run(self, work: Callable[[Connection], R]) -> R:
        """Run *work* in one transaction, in a thread.

        Raises RbeeError for a database that cannot be used, IntegrityError for a row that is there already.
        """
        return await asyncio.to_thread(self._locked, work)

    def _locked(self, work: Callable[[Connection], R]) -> R:
        with self._lock:
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except IntegrityError:
                raise
            except DatabaseError as error:
                file = Path(str(self._url.database)) if self._is_file else None
                sound = database_error(error.orig, f"the queen's database {self._shown}", file)
                raise sound or self._unusable(error) from error

    def _corrupt(self, error: DatabaseError) -> RbeeError:
        return RbeeError(
            ErrorCode.STATE_CORRUPT,
            f"The queen's database {self._shown} cannot be read: {self._redactor.clean(str(error.orig))}.",
            details={"file": self._shown},
            hint=f"Move it away ({self._shown}) and start again: an empty one is created; then add the nodes and the "
            "clients' keys again.",
        )

    def _unusable(self, error: DatabaseError) -> RbeeError:
        if isinstance(error.orig, sqlite3.Error) or not isinstance(error, OperationalError):
            return self._corrupt(error)
        return RbeeError(
            ErrorCode.PERMISSION_DENIED,
            f"The queen's database {self._shown} cannot be opened: {self._redactor.clean(str(error.orig))}.",
            details={"file": self._shown},
        )

    @property
    def _is_file(self) -> bool:
        return self._url.get_backend_name() == "sqlite" and bool(self._url.database)

    @property
    def _shown(self) -> str:
        if self._is_file:
            return str(self._url.database)
        return self._redactor.clean(self._url.render_as_string(hide_password=True))


def _add_columns(connection: Connection) -> None:
    """Add the columns that tables of an earlier version lack; they may be null."""
    there = inspect(connection)
    for table in METADATA.sorted_tables:
        names = {column["name"] for column in there.get_columns(table.name)}
        for column in table.columns:
            if column.name not in names:
                added = CreateColumn(column).compile(dialect=connection.dialect)
                connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {added}"))


def _read(statement: Select[Any], connection: Connection) -> None:
    connection.execute(statement).all()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Let two processes wait for each other, and survive a crash."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()
