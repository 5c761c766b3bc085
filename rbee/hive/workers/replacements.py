"""Start workers in place of those that are ended because they stalled, or because their model's file changed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

from rbee.contracts.workers import SpawnRequest
from rbee.errors import RbeeError
from rbee.hive.workers import model_files
from rbee.hive.workers.managed_worker import ManagedWorker

log = logging.getLogger(__name__)


class Replacements:
    """The workers in whose place another one is to be started. *spawn* starts it."""

    def __init__(self, spawn: Callable[[SpawnRequest], Awaitable[object]]) -> None:
        self._spawn = spawn
        self._replacing: dict[str, ManagedWorker] = {}

    def find(self, request: SpawnRequest, model_ref: str) -> ManagedWorker | None:
        """Return the worker, if any, in whose place a start for requests comes: that one keeps its options."""
        return next((one for one in self._replacing.values() if request.join and one.fits(request, model_ref)), None)

    def settle(self, worker: ManagedWorker) -> None:
        """Note that another worker was started in its place."""
        self._replacing.pop(worker.spec.worker_id, None)

    def carry_out(self, worker: ManagedWorker) -> Coroutine[object, object, None]:
        """Start a worker in place of one that is ended; a failure is logged, since nobody waits for it."""
        self._replacing[worker.spec.worker_id] = worker  # at once: a request may come before the task runs
        return self._carry_out(worker)

    async def _carry_out(self, worker: ManagedWorker) -> None:
        try:
            await model_files.wait_until_settled(Path(worker.spec.model_path), worker.files)
            # A request may have started one meanwhile.
            if worker.spec.worker_id in self._replacing:
                await self._spawn(worker.request.model_copy(update={"join": True}))
        except RbeeError as error:
            fields = {"worker_id": worker.spec.worker_id, "code": error.code.value, "reason": error.message}
            log.error("a worker could not be replaced", extra={"fields": fields})
        finally:
            self.settle(worker)
