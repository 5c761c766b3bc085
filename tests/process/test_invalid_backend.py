"""A request that names a backend which does not exist, at the queen's routes and a hive's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hives import StartHive
from tests.support.machine import Machine
from tests.support.queens import QueenProcess, machine_with_fake

pytestmark = pytest.mark.process


@pytest.fixture(name="machine")
def _machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_with_fake(tmp_path) as machine:
        yield machine


def assert_invalid_backend(error: dict[str, Any]) -> None:
    """Check the code, and that value and valid ones are named."""
    assert error["code"] == "INVALID_BACKEND"
    assert error["type"] == "invalid_request_error"
    assert error["param"] == "backend"
    assert all(name in error["message"] for name in ("vulkan", "cuda", "metal", "cpu"))


def test_the_queen_refuses_a_backend_that_does_not_exist(machine: Machine) -> None:
    """A task, a spawn, and the header X-Rbee-Backend are answered with 400 and INVALID_BACKEND."""
    machine.configure("queen", local_hive=False)
    queen = QueenProcess(machine)
    bodies = {
        "/v2/tasks": {"model": queen.model, "prompt": "hello", "backend": "vulkan"},
        "/v2/workers/spawn": {"node": "localhost", "model": queen.model, "backend": "vulkan"},
    }

    for path, body in bodies.items():
        status, error = queen.refused("POST", path, body)
        assert status == 400
        assert_invalid_backend(error)

    response = queen.http.post(
        "/v1/chat/completions",
        json={"model": queen.model, "messages": [{"role": "user", "content": "hello"}]},
        headers={"X-Rbee-Backend": "vulkan"},
    )
    assert response.status_code == 400
    assert_invalid_backend(response.json()["error"])


def test_a_hive_refuses_a_backend_that_does_not_exist(start_hive: StartHive) -> None:
    """A spawn is answered with 400 and INVALID_BACKEND."""
    hive = start_hive()

    response = hive.http.post("/v1/workers/spawn", json={"model": "demo", "backend": "vulkan"})

    assert response.status_code == 400
    assert_invalid_backend(response.json()["error"])
