"""From the request for a worker to a model that answers: a hive with a spare worker, and llama-server started anew."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psutil

from bench.rows import Row
from bench.servers import CONTEXT_PER_SLOT, is_healthy, model, running, theirs
from rbee.hive.workers.process import worker_program
from rbee.lifeline import ORDERED
from tests.support.hives import HiveProcess

SLOTS = 4
SPARE_WITHIN_S = 60.0
SERVES_WITHIN_S = 60.0
_POLL_S = 0.005


def spare(rounds: int) -> list[Row]:
    """Spawn and stop a worker of a hive that stays, and start llama-server, in turns."""
    ours: list[float] = []
    peer: list[float] = []
    with TemporaryDirectory(prefix="rbee-bench-") as name:
        hive = HiveProcess(
            Path(name),
            worker_binary=worker_program(None),
            spare_worker=True,
            slots=SLOTS,
            context_length=CONTEXT_PER_SLOT,
        )
        try:
            # The first of each only warms the page cache.
            for _ in range(rounds + 1):
                _wait_for_spare(hive)
                ours.append(_spawn(hive))
                _wait_for_spare(hive)  # its imports would slow the peer down
                with running(theirs(SLOTS)) as server:
                    peer.append(server.healthy_after_s)
        finally:
            hive.close()
    return [Row("spawn_with_spare", median(ours[1:]), median(peer[1:]), "llama-server", "s", "<=0.6")]


def _spawn(hive: HiveProcess) -> float:
    start = time.perf_counter()
    spawned = hive.spawn(f"file://{model()}")
    worker, headers = spawned["worker"], {"Authorization": f"Bearer {spawned['api_key']}"}
    while not is_healthy(int(worker["url"].rpartition(":")[2]), "/v1/ready", headers):
        if time.perf_counter() - start > SERVES_WITHIN_S:
            raise RuntimeError(f"the worker did not load its model within {SERVES_WITHIN_S:.0f} s")
        time.sleep(_POLL_S)
    took = time.perf_counter() - start
    hive.post(f"/v1/workers/{worker['worker_id']}/shutdown")
    return took


def _wait_for_spare(hive: HiveProcess) -> None:
    """Wait until the hive has a spare that has imported all: it holds llama.cpp's library, and no thread imports."""
    deadline = time.perf_counter() + SPARE_WITHIN_S
    while not any(_is_ready(child) for child in psutil.Process(hive.process.pid).children()):
        if time.perf_counter() > deadline:
            raise RuntimeError(f"the hive had no spare worker within {SPARE_WITHIN_S:.0f} s")
        time.sleep(_POLL_S)
    time.sleep(0.2)  # the spare's word that it is ready is on its way to the hive


def _is_ready(child: psutil.Process) -> bool:
    try:
        imported = any("libllama" in mapped.path for mapped in child.memory_maps())
        return child.cmdline()[-1:] == [ORDERED] and imported and child.num_threads() == 1
    except psutil.Error:
        return False
