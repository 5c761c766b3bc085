"""Errors about databases whose URL has a password."""

from __future__ import annotations

import traceback

import pytest

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
