"""Store the catalog in a database, through SQLAlchemy; blocking, for the catalog's own thread only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, SQLAlchemyError

from rbee.config.database_errors import database_error
from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import CatalogEntry
from rbee.errors import RbeeError
from rbee.hive.memory import LoadedModel
from rbee.observe.redaction import Redactor, secrets_in_url

_METADATA: Final = sa.MetaData()
MODELS: Final = sa.Table(
    "models",
    _METADATA,
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("provider", sa.String(16), nullable=False),
    sa.Column("reference", sa.Text, nullable=False),
    sa.Column("local_path", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.String(64)),
    sa.Column("quantization", sa.String(32)),
    sa.Column("architecture", sa.String(64)),
    sa.Column("context_length", sa.BigInteger),
    sa.Column("downloaded_at_unix", sa.BigInteger, nullable=False),
    # Not in lists: when the file was last changed, to detect that it was.
    sa.Column("modified_ns", sa.BigInteger, nullable=False),
)
# The checksums of the parts of split models, the first part first, with spaces between.
PARTS: Final = sa.Table(
    "model_parts",
    _METADATA,
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("sha256", sa.Text, nullable=False),
)
# What the headers tell that models can do, with spaces between.
CAPABILITIES: Final = sa.Table(
    "model_capabilities",
    _METADATA,
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("capabilities", sa.Text, nullable=False),
)
# The most memory that each load took, for the next estimate.
LOADS: Final = sa.Table(
    "loads",
    _METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("backend", sa.String(16), nullable=False),
    sa.Column("slots", sa.Integer, nullable=False),
    sa.Column("context_length", sa.BigInteger, nullable=False),
    sa.Column("cache_type", sa.String(8), nullable=False),
    sa.Column("peak_bytes", sa.BigInteger, nullable=False),
    sa.Column("measured_at_unix", sa.BigInteger, nullable=False),
)


class CatalogRow(NamedTuple):
    """A model as it was when it was cataloged.

    `modified_ns` tells a change of its files, and `digests` are their SHA-256, the first part first; empty where they
    are not known.
    """

    entry: CatalogEntry
    modified_ns: int
    digests: tuple[str, ...] = ()


class CatalogTable:
    """The rows of one database.

    Every method raises RbeeError: DISK_FULL, PERMISSION_DENIED, or STATE_CORRUPT where the database is not usable.
    """

    def __init__(self, url: str) -> None:
        self._redactor = Redactor(secrets_in_url(url))
        self._name = "at models_db"
        self._file: Path | None = None
        with self._explained():
            parsed = sa.make_url(url)
            self._name = self._redactor.clean(parsed.render_as_string(hide_password=True))
            if parsed.get_backend_name() == "sqlite" and parsed.database:
                self._file = Path(parsed.database)
            self._engine = sa.create_engine(url)
            _METADATA.create_all(self._engine)

    def all(self) -> list[CatalogRow]:
        """Return every row."""
        with self._explained(), self._engine.connect() as connection:
            parts = {str(row[0]): str(row[1]) for row in connection.execute(sa.select(PARTS.c.id, PARTS.c.sha256))}
            able = {str(row[0]): str(row[1]).split() for row in connection.execute(sa.select(CAPABILITIES))}
            rows = connection.execute(sa.select(MODELS)).mappings().all()
            return [_row({**row, "capabilities": able.get(row["id"], [])}, parts.get(row["id"])) for row in rows]

    def put(self, row: CatalogRow) -> None:
        """Store a row, replacing the one of the same id."""
        entry = row.entry
        values = {**entry.model_dump(mode="json", exclude={"problem", "capabilities"}), "modified_ns": row.modified_ns}
        with self._explained(), self._engine.begin() as connection:
            for table in (MODELS, PARTS, CAPABILITIES):
                connection.execute(sa.delete(table).where(table.c.id == entry.id))
            connection.execute(sa.insert(MODELS).values(**values))
            if entry.capabilities:
                connection.execute(
                    sa.insert(CAPABILITIES).values(id=entry.id, capabilities=" ".join(entry.capabilities))
                )
            if len(row.digests) > 1:
                connection.execute(sa.insert(PARTS).values(id=entry.id, sha256=" ".join(row.digests)))

    def remove(self, model_id: str) -> None:
        """Delete a row."""
        with self._explained(), self._engine.begin() as connection:
            for table in (MODELS, PARTS, CAPABILITIES):
                connection.execute(sa.delete(table).where(table.c.id == model_id))

    def peaks(self) -> dict[str, int]:
        """Return the most bytes that each load took, by the id of the loaded model."""
        with self._explained(), self._engine.connect() as connection:
            return {str(row[0]): int(row[1]) for row in connection.execute(sa.select(LOADS.c.id, LOADS.c.peak_bytes))}

    def put_peak(self, loaded: LoadedModel, peak_bytes: int, at_unix: int) -> None:
        """Store what a load took at most, replacing what was known of the same."""
        load = loaded.load
        values = {
            "id": loaded.id,
            "model": loaded.model,
            "size_bytes": loaded.size_bytes,
            "backend": load.backend.value,
            "slots": load.slots,
            "context_length": load.context_length,
            "cache_type": load.cache_type,
            "peak_bytes": peak_bytes,
            "measured_at_unix": at_unix,
        }
        with self._explained(), self._engine.begin() as connection:
            connection.execute(sa.delete(LOADS).where(LOADS.c.id == loaded.id))
            connection.execute(sa.insert(LOADS).values(**values))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DatabaseError as error:
            if (sound := database_error(error.orig, f"the model catalog {self._name}", self._file)) is not None:
                raise sound from error
            raise RbeeError(
                ErrorCode.STATE_CORRUPT,
                f"The model catalog {self._name} cannot be used: {self._redactor.clean(str(error.orig))}.",
                details={"database": self._name},
                hint="Move the file away, or name another with models_db; the models themselves stay, "
                "and are cataloged again when they are used.",
            ) from error
        # ValueError and ImportError: a URL whose port is no number, or whose driver is not installed.
        except (SQLAlchemyError, ValueError, ImportError) as error:
            raise RbeeError(
                ErrorCode.STATE_CORRUPT,
                # Not the words of an error about the URL: they may quote a part of it, and with it of the password.
                f"The model catalog {self._name} cannot be opened ({type(error).__name__}).",
                details={"database": self._name},
                hint="Correct the setting models_db of the hive: a URL such as sqlite:////path/models.db.",
            ) from error


def _row(values: dict[str, Any], parts: str | None) -> CatalogRow:
    modified_ns = int(values.pop("modified_ns"))
    entry = CatalogEntry.model_validate(values)
    digests = tuple(parts.split()) if parts else (entry.sha256,) if entry.sha256 else ()
    return CatalogRow(entry, modified_ns, digests)
