"""`rbee-keeper worker start` and `list` with the options of workers, against a queen that stands in, and a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.keeper import rbee
from tests.support.queens import QueenProcess, machine_with_fake
from tests.support.stand_in_queen import StandInQueen, event

pytestmark = pytest.mark.process

WORKER: dict[str, Any] = {
    "worker_id": "worker-1",
    "node": "localhost",
    "url": "http://127.0.0.1:1",
    "model_ref": "package:a/b.gguf",
    "backend": "cpu",
    "device": 0,
    "state": "idle",
    "slots_total": 4,
    "slots_available": 3,
    "last_active_unix": 0.0,
}
DONE = event("[DONE]")


def test_worker_list_of_declared_models(queen: StandInQueen) -> None:
    """A worker is listed by the name under which its model is served; its details are what it has of its own."""
    own = {"memory_bytes": 94_000_000, "need_bytes": 120_000_000, "keep": 600.0}
    options = {"cache_type": "q8_0", "slots": 8, "flash_attention": True}
    declared = {**WORKER, **own, "worker_id": "worker-2", "served": "helper", "options": options}
    queen.answer("GET", "/v2/workers/list", {"workers": [{**WORKER, "keep": "always"}, declared]})

    listed, detailed = rbee("worker", "list"), rbee("worker", "list", "--details")

    assert [line.split()[2] for line in listed.stdout.splitlines()] == ["MODEL", "package:a/b.gguf", "helper"]
    assert [" ".join(line.split()) for line in detailed.stdout.splitlines()] == [
        "ID NODE MODEL SERVES MEMORY KEEP OPTIONS",
        "worker-1 localhost package:a/b.gguf - - of - always -",
        "worker-2 localhost package:a/b.gguf helper 94.0 MB of 120.0 MB 600 s "
        "cache_type q8_0, slots 8, flash_attention true",
    ]


def test_worker_start_takes_every_option(queen: StandInQueen) -> None:
    """What is given goes to the queen as it is, a time in seconds; what is no time is refused before that."""
    for _ in range(2):
        queen.stream("POST", "/v2/workers/spawn", event({"worker": WORKER}), DONE)
    start = ("worker", "start", "--node", "localhost", "--model", "package:a/b.gguf")
    options = [
        "--cache-type",
        "q8_0",
        "--flash-attention",
        "--speculate",
        "0",
        "--threads",
        "4",
        "--prompt-batch",
        "64",
    ]

    given = rbee(*start, *options, "--keep", "10m")
    off = rbee(*start, "--no-flash-attention", "--keep", "always")
    wrong = rbee(*start, "--keep", "soon")

    assert (given.code, off.code, wrong.code) == (0, 0, 2)
    assert "soon" in wrong.stderr
    first, second = (request.body for request in queen.requests("POST", "/v2/workers/spawn"))
    asked = {"cache_type": "q8_0", "flash_attention": True, "speculate": 0, "threads": 4, "prompt_batch": 64}
    assert first == {"node": "localhost", "model": "package:a/b.gguf", **asked, "keep": 600.0}
    assert second == {
        "node": "localhost",
        "model": "package:a/b.gguf",
        "flash_attention": False,
        "keep": "always",
    }


def test_a_worker_has_the_options_that_it_was_started_with(tmp_path: Path) -> None:
    """`worker start` hands its options through queen and hive to the worker, and the list says which they are."""
    with machine_with_fake(tmp_path) as machine:
        queen = QueenProcess(machine)
        given = ("--slots", "3", "--context-length", "128", "--cache-type", "bf16", "--no-flash-attention")
        rest = ("--prompt-batch", "16", "--speculate", "2", "--threads", "1", "--keep", "2h")

        started = machine.run(
            "rbee-keeper", "worker", "start", "--node", "localhost", "--model", queen.model, *given, *rest
        )

        assert started.code == 0, started.stderr
        worker = queen.worker()
        assert worker["options"] == {
            "slots": 3,
            "context_length": 128,
            "cache_type": "bf16",
            "flash_attention": False,
            "prompt_batch": 16,
            "speculate": 2,
            "threads": 1,
        }
        assert (worker["keep"], worker["slots_total"], worker["context_length"]) == (7200, 3, 128)
        assert worker["need_bytes"] > 0
        (row,) = queen.get("/v2/workers/health")["workers"]
        assert (row["health"]["slots_total"], row["health"]["context_length"]) == (3, 128)
        status, error = queen.refused(
            "POST",
            "/v2/workers/spawn",
            {"node": "localhost", "model": queen.model, "cache_type": "q8_0", "flash_attention": False},
        )
        assert (status, error["code"]) == (400, "INVALID_REQUEST")
        assert "cache_type q8_0" in error["message"]
