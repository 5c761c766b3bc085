"""Keep the table `beehives` in any SQL database, off the event loop.

A module of its own, because importing SQLAlchemy takes as long as the rest of a queen's start together.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    select,
    update,
)
from sqlalchemy import delete as delete_from
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, IntegrityError, NoSuchModuleError, OperationalError

from rbee.contracts.devices import Detection
from rbee.contracts.errors import ErrorCode
from rbee.contracts.hives import NodeInfo, NodeSpec, NodeStatus
from rbee.errors import ConfigError, RbeeError
from rbee.observe.redaction import Redactor, secrets_in_url

R = TypeVar("R")

METADATA = MetaData()
BEEHIVES = Table(
    "beehives",
    METADATA,
    Column("node_name", String(253), primary_key=True),
    Column("ssh_host", String(253), nullable=False),
    Column("ssh_port", Integer, nullable=False),
    Column("ssh_user", String(64), nullable=False),
    Column("ssh_key_path", Text),
    Column("git_repo_url", Text),
    Column("git_branch", String(255), nullable=False),
    Column("install_path", Text),
    Column("hive_port", Integer, nullable=False),
    Column("last_connected_unix", BigInteger),
    Column("last_error", Text),
    Column("status", String(16), nullable=False),
    Column("backends", JSON, nullable=False),
    Column("devices", JSON, nullable=False),
)


class NodeTable:
    """Rows of nodes. Open it once; its methods run in threads, one at a time."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._redactor = Redactor(secrets_in_url(url.render_as_string(hide_password=False)))
        self._engine = create_engine(url)
        self._lock = threading.Lock()
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)

    @classmethod
    def at(cls, database_url: str) -> NodeTable:
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
    def in_file(cls, path: Path) -> NodeTable:
        """Use the SQLite database in a file."""
        return cls(URL.create("sqlite", database=str(path)))

    async def open(self) -> None:
        """Make the table if it is not there. Raises RbeeError STATE_CORRUPT for a broken database."""
        await self._do(METADATA.create_all)
        await self._do(lambda connection: connection.execute(select(BEEHIVES)).all())

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self._engine.dispose)

    async def add(self, spec: NodeSpec) -> NodeInfo:
        """Add a node; with `spec.replace` change one that is there. Raises RbeeError NODE_EXISTS."""
        values = spec.model_dump(mode="json", exclude={"hive_key", "replace"})

        def work(connection: Connection) -> NodeInfo:
            known = connection.execute(_by_name(spec.node_name)).first()
            if known is not None and not spec.replace:
                raise _exists(spec.node_name)
            if known is None:
                connection.execute(BEEHIVES.insert().values(status=NodeStatus.UNKNOWN.value, **values))
            else:
                connection.execute(_row(spec.node_name).values(**values))
            return _info(connection.execute(_by_name(spec.node_name)).one())

        try:
            return await self._do(work)
        except IntegrityError as error:
            raise _exists(spec.node_name) from error

    async def remove(self, node: str) -> None:
        """Remove a node. Raises RbeeError NODE_NOT_FOUND."""
        done = await self._do(
            lambda connection: connection.execute(delete_from(BEEHIVES).where(BEEHIVES.c.node_name == node)).rowcount
        )
        if not done:
            raise RbeeError(ErrorCode.NODE_NOT_FOUND, f"There is no node named {node}.")

    async def list(self) -> list[NodeInfo]:
        """List the nodes by name."""
        rows = await self._do(
            lambda connection: connection.execute(select(BEEHIVES).order_by(BEEHIVES.c.node_name)).all()
        )
        return [_info(row) for row in rows]

    async def record_reached(self, node: str, detection: Detection, *, now: float) -> None:
        """Record that the hive of *node* said Hello; a node that is not registered is ignored."""
        await self._change(
            node,
            status=NodeStatus.REACHABLE.value,
            last_connected_unix=int(now),
            last_error=None,
            backends=[backend.value for backend in detection.backends],
            devices={backend.value: count for backend, count in detection.counts.items()},
        )

    async def record_lost(self, node: str, reason: str) -> None:
        """Record that the hive of *node* cannot be reached, and why."""
        await self._change(node, status=NodeStatus.UNREACHABLE.value, last_error=reason)

    async def _change(self, node: str, **values: Any) -> None:
        await self._do(lambda connection: connection.execute(_row(node).values(**values)).rowcount)

    async def _do(self, work: Callable[[Connection], R]) -> R:
        """Run *work* in one transaction, in a thread. Raises RbeeError for a database that cannot be used."""
        return await asyncio.to_thread(self._locked, work)

    def _locked(self, work: Callable[[Connection], R]) -> R:
        with self._lock:
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except IntegrityError:
                raise
            except OperationalError as error:
                raise self._unusable(error) from error
            except DatabaseError as error:
                raise self._corrupt(error) from error

    def _corrupt(self, error: DatabaseError) -> RbeeError:
        return RbeeError(
            ErrorCode.STATE_CORRUPT,
            f"The node registry {self._shown} cannot be read: {self._redactor.clean(str(error.orig))}.",
            details={"file": self._shown},
            hint=f"Move it away ({self._shown}) and start again: an empty one is made, and nodes can be added anew.",
        )

    def _unusable(self, error: OperationalError) -> RbeeError:
        missing_column = isinstance(error.orig, sqlite3.OperationalError) and "no such column" in str(error.orig)
        if missing_column:
            return self._corrupt(error)
        return RbeeError(
            ErrorCode.PERMISSION_DENIED,
            f"The node registry {self._shown} cannot be opened: {self._redactor.clean(str(error.orig))}.",
            details={"file": self._shown},
        )

    @property
    def _shown(self) -> str:
        if self._url.get_backend_name() == "sqlite" and self._url.database:
            return self._url.database
        return self._redactor.clean(self._url.render_as_string(hide_password=True))


def _prepare_sqlite(connection: Any, _record: object) -> None:
    """Let two processes wait for each other, and survive a crash."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()


def _by_name(node: str) -> Any:
    return select(BEEHIVES).where(BEEHIVES.c.node_name == node)


def _row(node: str) -> Any:
    return update(BEEHIVES).where(BEEHIVES.c.node_name == node)


def _info(row: Any) -> NodeInfo:
    return NodeInfo.model_validate(dict(row._mapping))  # noqa: SLF001 -- SQLAlchemy's public name for it


def _exists(node: str) -> RbeeError:
    return RbeeError(ErrorCode.NODE_EXISTS, f"There already is a node named {node}.", details={"node": node})
