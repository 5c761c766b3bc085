"""A stand-in hub with one model, which downloads of a test come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.downloads import FILE, REPO
from tests.support.gguf_files import write_gguf
from tests.support.hub import Hub


@pytest.fixture(name="content", scope="module")
def _content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_gguf(tmp_path_factory.mktemp("model") / "m.gguf", size=3 * 1024 * 1024).read_bytes()


@pytest.fixture(name="hub")
def _hub(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as hub:
        hub.add(REPO, FILE, content)
        for name, value in hub.environ(tmp_path).items():
            monkeypatch.setenv(name, value)
        yield hub
