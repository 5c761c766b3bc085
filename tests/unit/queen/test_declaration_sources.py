"""What is stored of declarations, in a real database: what this version cannot read is told, and can be mended."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sqlalchemy import insert

from rbee.config.paths import Paths
from rbee.contracts.served import ServedModel
from rbee.queen.database import Database
from rbee.queen.serving.declarations import Declarations
from rbee.queen.serving.sources import DeclarationSources
from rbee.queen.tables import SERVED_MODELS


async def sources_with_a_foreign_row(home: Path) -> DeclarationSources:
    """Return the declarations of a queen whose database holds a row of a later version."""
    database = Database(None, Paths(home))
    row = {"name": "later", "declaration": {"model": "hf:org/repo", "teleport": True}}
    await (await database.require()).run(lambda connection: connection.execute(insert(SERVED_MODELS).values(row)))
    sources = DeclarationSources(Declarations(), database, list)
    await sources.load()
    return sources


def test_a_row_that_cannot_be_read_is_told_until_it_is_declared_anew(tmp_path: Path) -> None:
    """A queen starts without it and says so; whoever declares the name again has mended it."""

    async def run() -> None:
        sources = await sources_with_a_foreign_row(tmp_path)
        assert sources.declarations.all() == ()
        assert "later cannot be read by this version" in (sources.problem or "")
        await sources.put(ServedModel(name="later", model="hf:org/repo"))
        assert sources.problem is None
        assert [each.model.name for each in sources.declarations.all()] == ["later"]

    asyncio.run(run())


def test_a_row_that_cannot_be_read_can_be_removed(tmp_path: Path) -> None:
    """It is gone from the database too: the next start knows nothing of it."""

    async def run() -> None:
        sources = await sources_with_a_foreign_row(tmp_path)
        await sources.remove("later")
        assert sources.problem is None
        database = Database(None, Paths(tmp_path))
        await database.open()
        again = DeclarationSources(Declarations(), database, list)
        await again.load()
        assert again.problem is None

    asyncio.run(run())
