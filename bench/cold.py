"""What keeper, queen and hive add to a cold answer: from nothing running to the first token, and without them.

Both ways load the same model into as many slots and read the same prompt; the difference is ours alone.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.rows import Row
from bench.servers import free_port, ours, running

ADDED_S = 0.5
_WITHIN_S = 60
_SLOTS = 4  # the hive's default, and its default context
_CONTEXT = 4096
_PROMPT = "Name a bee."


def cold(rounds: int) -> list[Row]:
    """Take turns: `rbee-keeper infer` from cold, and a worker alone that is asked as soon as it is healthy."""
    whole: list[float] = []
    alone: list[float] = []
    with tempfile.TemporaryDirectory(prefix="rbee-bench-") as name:
        # The first of each fetches the model into the catalog, and warms the page cache.
        for _ in range(rounds + 1):
            whole.append(_through_all(Path(name)))
            alone.append(_worker_alone())
    added = median(whole[1:]) - median(alone[1:])
    print(f"  through all {median(whole[1:]):.3f} s, the worker alone {median(alone[1:]):.3f} s")
    return [Row("cold_added", added, ADDED_S, "promised", "s", "<=1.0")]


def _through_all(home: Path) -> float:
    own = {key: value for key, value in os.environ.items() if not key.startswith("RBEE_")}
    config = home / "config.toml"
    config.write_text(
        f'queen_url = "http://127.0.0.1:{free_port()}"\n\n[queen]\nlocal_hive_port = {free_port()}\n', encoding="utf-8"
    )
    command = [str(Path(sys.executable).with_name("rbee-keeper")), "infer", "--node", "localhost", "--model", "demo"]
    command += ["--prompt", _PROMPT, "--max-tokens", "2", "--temperature", "0", "--quiet"]
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        env={**own, "RBEE_HOME": str(home), "RBEE_CONFIG": str(config)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as keeper:
        assert keeper.stdout is not None
        assert keeper.stderr is not None
        first = keeper.stdout.read(1)
        took = time.perf_counter() - began
        keeper.stdout.read()
        errors = keeper.stderr.read()
        if keeper.wait(_WITHIN_S) or not first:
            raise RuntimeError(f"rbee-keeper infer failed with {keeper.returncode}: {errors[-500:]!r}")
    return took


def _worker_alone() -> float:
    with running(ours(_SLOTS, _CONTEXT)) as worker:
        began = time.perf_counter()
        body = json.dumps({"prompt": _PROMPT, "max_tokens": 2, "temperature": 0})
        connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=_WITHIN_S)
        connection.request("POST", worker.route, body, {**worker.headers, "Content-Type": "application/json"})
        answer = connection.getresponse()
        while b'"token":' not in (line := answer.readline()):
            if not line:
                raise RuntimeError("the worker gave no token")
        took = time.perf_counter() - began
        connection.close()
        return worker.healthy_after_s + took
