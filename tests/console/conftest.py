"""A browser, and a machine whose model has something to show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.console.browser import node_modules
from tests.support.machine import Machine
from tests.support.queens import machine_with_fake

REPLY: Final = "A list:\n\n- one **bold**\n\n```html\n<b>code</b>\n```\n\n<script>alert(1)</script> " + "word " * 300


@pytest.fixture(name="modules", scope="session")
def _modules() -> Path:
    return node_modules()


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path, tokens_per_s=60, replies={"": REPLY}) as machine:
        machine.configure("hive", slots=2)
        yield machine
