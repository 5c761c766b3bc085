"""Keep in the queen's database the models that commands declare."""

from __future__ import annotations

from pydantic import ValidationError
from sqlalchemy import Delete, delete, insert, select
from sqlalchemy.engine import Connection

from rbee.contracts import patterns
from rbee.contracts.served import ServedModel
from rbee.queen.sql import SqlDatabase
from rbee.queen.tables import SERVED_MODELS


class ServedTable:
    """Rows of declared models."""

    def __init__(self, sql: SqlDatabase) -> None:
        self._sql = sql

    async def all(self) -> tuple[list[ServedModel], dict[str, str]]:
        """Return every declared model, and by name the reason why one cannot be read by this version."""
        query = select(SERVED_MODELS).order_by(SERVED_MODELS.c.name)
        rows = await self._sql.run(lambda connection: connection.execute(query).mappings().all())
        found: list[ServedModel] = []
        unreadable: dict[str, str] = {}
        for row in rows:
            try:
                found.append(ServedModel.model_validate({**row["declaration"], "name": row["name"]}))
            except ValidationError as error:
                unreadable[row["name"]] = "; ".join(patterns.reason(each) for each in error.errors(include_url=False))
        return found, unreadable

    async def put(self, model: ServedModel) -> None:
        """Store a declared model in the place of one of the same name."""
        declaration = model.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)

        def work(connection: Connection) -> None:
            connection.execute(_row_of(model.name))
            connection.execute(insert(SERVED_MODELS).values(name=model.name, declaration=declaration))

        await self._sql.run(work)

    async def remove(self, name: str) -> None:
        """Remove a declared model."""
        await self._sql.run(lambda connection: connection.execute(_row_of(name)).rowcount)


def _row_of(name: str) -> Delete:
    return delete(SERVED_MODELS).where(SERVED_MODELS.c.name == name)
