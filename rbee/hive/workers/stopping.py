"""Stop workers, wait until they are gone, and report for each whether its memory came back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from rbee.contracts.workers import WorkerStopReceipt
from rbee.errors import RbeeError
from rbee.hive.workers.managed_worker import ManagedWorker
from rbee.hive.workers.memory_reclaim import ReclaimChecker

log = logging.getLogger(__name__)


class WorkerStops:
    """Stops of workers that somebody waits for.

    Args:
        reclaim: checks whether the memory of a stopped worker came back.
    """

    def __init__(self, reclaim: ReclaimChecker) -> None:
        self._reclaim = reclaim

    async def carry_out(self, workers: Sequence[ManagedWorker], begin: Callable[[], object]) -> list[WorkerStopReceipt]:
        """Call *begin*, which stops *workers*, and return their receipts when they are gone.

        What their GPUs have free is noted before.
        """
        if not workers:
            begin()
            return []
        started = time.monotonic()
        await asyncio.gather(*(self._note_free_memory(worker) for worker in workers))
        begin()
        await asyncio.gather(*(worker.gone.wait() for worker in workers))
        seconds = time.monotonic() - started
        results = await self._reclaim.check([worker.stopped() for worker in workers])
        for worker, result in zip(workers, results, strict=True):
            if result.came_back is False:
                holders = [f"{holder.name} ({holder.pid})" for holder in result.held_by]
                fields = {"worker_id": worker.spec.worker_id, "held_by": holders}
                log.error("memory was not released", extra={"fields": fields})
        return [worker.receipt(seconds, result) for worker, result in zip(workers, results, strict=True)]

    async def _note_free_memory(self, worker: ManagedWorker) -> None:
        worker.free_before = await self._reclaim.free_on(worker.spec.backend, worker.spec.device)


async def shut_down(worker: ManagedWorker, drain_s: float) -> None:
    """Have a worker end its requests within *drain_s* seconds; one that cannot be asked does within its own limit."""
    try:
        await (await worker.http_client()).shutdown(drain_s)
    except RbeeError as error:
        if worker.process.running:
            fields = {"worker_id": worker.spec.worker_id, "reason": error.message}
            log.info("a worker did not take its time to end", extra={"fields": fields})
            worker.process.terminate()
