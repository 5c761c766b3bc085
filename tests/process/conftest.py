"""Fixtures of the process tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gguf_files import write_gguf
from tests.support.hives import StartHive, starting_hives


@pytest.fixture(name="start_hive")
def _start_hive(tmp_path: Path) -> Iterator[StartHive]:
    yield from starting_hives(tmp_path)


@pytest.fixture(name="model")
def _model(tmp_path: Path) -> str:
    return f"file://{write_gguf(tmp_path / 'tiny.gguf')}"
