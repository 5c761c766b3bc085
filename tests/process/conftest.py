"""Fixtures of the process tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gguf_files import write_gguf
from tests.support.hives import StartHive, starting_hives
from tests.support.stand_in_queen import StandInQueen


@pytest.fixture(name="start_hive")
def _start_hive(tmp_path: Path) -> Iterator[StartHive]:
    yield from starting_hives(tmp_path)


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> str:
    return f"file://{write_gguf(tmp_path / 'tiny.gguf')}"


@pytest.fixture(name="queen")
def _queen(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInQueen]:
    """Give a queen that stands in for a real one, to which the keeper's environment points."""
    with StandInQueen() as queen:
        for name, value in queen.environ().items():
            monkeypatch.setenv(name, value)
        yield queen
