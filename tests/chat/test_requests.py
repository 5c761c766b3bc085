"""What clients of others really send, recorded with texts cut, is answered by a worker; with the fake engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chat.answers import fake_options
from tests.support.worker import Worker, worker

pytestmark = [pytest.mark.process, pytest.mark.engine]

RECORDED = sorted((Path(__file__).parent / "requests").glob("*.json"))
ANSWER = "Written."  # one token, which a stream tells in one piece
# What ends a stream of each interface, by the beginning of its path.
ENDS = {"/v1/chat": "data: [DONE]", "/v1/messages": "event: message_stop", "/v1/responses": "event: response.completed"}


@pytest.fixture(scope="module", name="it")
def _it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    fake = fake_options("Qwen-Qwen3-0.6B", f"<think>\nIt ran.\n</think>\n\n{ANSWER}")
    with worker(tmp_path_factory.mktemp("worker"), fake=fake) as it:
        it.until_idle()
        yield it


@pytest.mark.parametrize("file", RECORDED, ids=lambda file: file.stem)
def test_a_recorded_request_is_answered(it: Worker, file: Path) -> None:
    """A client's request gets its answer whole, and the header names what of it was left out, and nothing else."""
    recorded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))

    response = it.http.post(recorded["path"], json=recorded["body"], headers=recorded["headers"])

    assert response.status_code == 200, response.text
    assert response.headers.get("x-rbee-ignored") == recorded["ignored"]
    assert ANSWER in response.text
    if recorded["body"].get("stream"):
        assert next(end for path, end in ENDS.items() if recorded["path"].startswith(path)) in response.text
