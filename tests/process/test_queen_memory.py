"""What the queen refuses does not stay in its memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.machine import Machine
from tests.support.queens import QueenProcess

pytestmark = pytest.mark.process

PATH = "/v1/completions"
MIB = 1024 * 1024


@pytest.fixture(name="queen")
def _queen(tmp_path: Path) -> Iterator[QueenProcess]:
    machine = Machine(tmp_path / "machine")
    machine.configure("worker", engine="fake")
    yield QueenProcess(machine)
    machine.close()


def test_a_large_body_is_let_go_with_its_refusal(queen: QueenProcess) -> None:
    """Sixty bodies of four megabytes, all refused, leave less than ten of them behind, without a collection."""
    key = queen.post("/v2/keys/add", {"name": "eve"})["key"]
    body = b'{"model":"demo","prompt":[' + b"{}," * 1_300_000 + b"{}]}"
    process = psutil.Process(queen.pid)

    def refuse(times: int) -> None:
        for _ in range(times):
            refused = httpx.post(
                queen.url + PATH,
                content=body,
                headers={"Authorization": f"Bearer {key}"},
                timeout=60,
                trust_env=False,
            )
            assert refused.status_code == 413

    refuse(5)  # what the first ones make the allocator keep is not asked about
    before = process.memory_info().rss
    refuse(60)

    assert process.memory_info().rss - before < 10 * 4 * MIB
