"""What logs and metrics tell of the requests of OpenAI-compatible clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine import Machine
from tests.support.queens import QueenProcess, machine_with_fake
from tests.support.waiting import eventually

pytestmark = pytest.mark.process

CHAT = "/v1/chat/completions"


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path) as machine:
        machine.tables["models"]["bee"] = f"file://{machine.root / 'model.gguf'}"
        yield machine


def request_body(**more: Any) -> dict[str, Any]:
    """Return the body of a chat."""
    return {"model": "bee", "messages": [{"role": "user", "content": "Bees?"}], "max_tokens": 5, **more}


def test_a_trace_goes_through_every_log(machine: Machine) -> None:
    """The trace that a client names is in the log lines of queen, hive and worker that belong to its request."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    queen = QueenProcess(machine)

    answer = queen.http.post(CHAT, json=request_body(), headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})

    assert answer.status_code == 200
    eventually(lambda: trace in queen.running.stderr.read_text(), within=5, because="the queen has written its line")
    for name in ("rbee-hive", "worker-"):
        eventually(
            lambda name=name: any(  # type: ignore[misc]
                trace in text for log, text in machine.logs().items() if log.startswith(name)
            ),
            within=5,
            because=f"{name} has written its line",
        )


def test_metrics_count_what_was_done(machine: Machine) -> None:
    """Queen, hive and worker count requests, tokens, times and placements of the requests that they had."""
    queen = QueenProcess(machine)
    for _ in range(2):
        assert queen.http.post(CHAT, json=request_body()).status_code == 200
    queen.refused("POST", CHAT, request_body(n=1000))

    metrics = queen.http.get("/metrics").text

    assert 'rbee_http_requests_total{method="POST",route="/v1/chat/completions",status="200"} 2.0' in metrics
    assert 'rbee_http_requests_total{method="POST",route="/v1/chat/completions",status="400"} 1.0' in metrics
    assert 'rbee_queen_tasks_total{client="operator",outcome="done"} 2.0' in metrics
    assert 'rbee_queen_tasks_total{client="operator",outcome="INVALID_REQUEST"} 1.0' in metrics
    assert 'rbee_queen_placements_total{decision="spawn"} 1.0' in metrics
    assert 'rbee_queen_placements_total{decision="warm"} 2.0' in metrics
