"""Errors about databases name the cause and not the password."""

from __future__ import annotations

import sqlite3
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest

from rbee.config.database_errors import database_error
from rbee.contracts.errors import ErrorCode
from rbee.errors import ConfigError, RbeeError
from rbee.hive.models.catalog_table import CatalogTable
from rbee.queen.sql import SqlDatabase

URLS = [
    "postgresql+psycopg://rbee:s3cret:w0rd@db/x",
    "postgresql://rbee:s3cret/w0rd@db:port/x",
    "nonsense://rbee:s3cret-w0rd@db/x",
    "rbee:s3cret-w0rd@db",
]


@pytest.mark.parametrize("url", URLS)
def test_no_error_of_the_catalog_shows_the_password(url: str) -> None:
    """A database URL that cannot be used is an error that names the setting, not the URL."""
    with pytest.raises(RbeeError) as raised:
        CatalogTable(url)

    assert raised.value.code is ErrorCode.STATE_CORRUPT
    assert "models_db" in f"{raised.value.message} {raised.value.hint}"
    assert "s3cret" not in repr(raised.value.body())


@pytest.mark.parametrize("url", URLS)
def test_no_error_of_the_registry_shows_the_password(url: str) -> None:
    """The same for the queen's database."""
    with pytest.raises(ConfigError) as raised:
        SqlDatabase.at(url)

    assert "database_url" in raised.value.message
    assert "s3cret" not in "".join(traceback.format_exception_only(raised.value))


@contextmanager
def _as_full(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as database:
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count={pages}")
        yield database


@contextmanager
def _as_held(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as holder, closing(sqlite3.connect(path, timeout=0)) as database:
        holder.execute("BEGIN EXCLUSIVE")
        yield database


@contextmanager
def _as_read_only(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        yield database


@contextmanager
def _as_spoilt(path: Path) -> Iterator[sqlite3.Connection]:
    path.write_bytes(b"bees" * 4096)
    with closing(sqlite3.connect(path)) as database:
        yield database


@pytest.mark.parametrize(
    ("opened", "code"),
    [
        (_as_full, ErrorCode.DISK_FULL),
        (_as_held, ErrorCode.PERMISSION_DENIED),
        (_as_read_only, ErrorCode.PERMISSION_DENIED),
        (_as_spoilt, None),
    ],
)
def test_only_a_spoilt_database_is_broken(
    tmp_path: Path, opened: Callable[[Path], AbstractContextManager[sqlite3.Connection]], code: ErrorCode | None
) -> None:
    """A disk that is full, a right that is missing and another program's lock are named, and nothing is to be moved."""
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE bees (name)")

    with opened(path) as database, pytest.raises(sqlite3.DatabaseError) as caught:
        database.execute("INSERT INTO bees VALUES (?)", ["b" * 100_000])

    error = database_error(caught.value, "the catalog", path)
    assert (None if error is None else error.code) is code
    assert error is None or "Move" not in error.hint
