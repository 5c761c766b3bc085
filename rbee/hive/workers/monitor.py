"""Turn what workers report, and what they answer to health checks, into events for supervision."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, get_args

from rbee.contracts.ids import MAX_CLIENT_CHARS
from rbee.contracts.models import Capability
from rbee.contracts.workers import WorkerState
from rbee.errors import RbeeError
from rbee.hive.models.catalog import Catalog
from rbee.hive.quarantines import Quarantines
from rbee.hive.supervision import (
    Bound,
    Event,
    HealthCheckAnswered,
    HealthCheckMissed,
    Instruction,
    Report,
    Reported,
    Supervision,
)
from rbee.hive.workers.managed_worker import ManagedWorker
from rbee.hive.workers.process import WorkerProcess

log = logging.getLogger(__name__)
_MAX_CLIENTS: Final = 1024
_MAX_WARNING_CHARS: Final = 300


class WorkerMonitor:
    """Turns the reports of workers, and their answers to health checks, into events.

    Args:
        supervision: read, never changed: events go through *dispatch*.
        dispatch: takes the events.
        carry_out: has queens told of a worker that says what its model can do, which changes nothing else.
        catalog: stores the most memory that a load was seen to take.
        quarantines: counts answered requests.
    """

    def __init__(
        self,
        supervision: Supervision,
        dispatch: Callable[[Event], None],
        carry_out: Callable[[Instruction], None],
        *,
        catalog: Catalog,
        quarantines: Quarantines,
    ) -> None:
        self._supervision = supervision
        self._dispatch = dispatch
        self._carry_out = carry_out
        self._catalog = catalog
        self._quarantines = quarantines

    async def listen(self, worker: ManagedWorker, process: WorkerProcess) -> None:
        """Take what a worker reports over its lifeline, until that closes."""
        worker_id = worker.spec.worker_id
        while (message := await process.read_message()) is not None:
            if "error" in message:
                worker.error = RbeeError.from_body(message) or worker.error
            elif "requests_stopped" in message:
                worker.requests_stopped = _count(message["requests_stopped"])
            elif "clients" in message:
                worker.clients = _names(message["clients"])
            elif "port" in message:
                self._dispatch(Bound(worker_id, time.monotonic()))
            elif message.get("state") in set(WorkerState):
                if WorkerState(message["state"]).serves:
                    worker.device_bytes = _count(message.get("device_bytes")) or worker.device_bytes
                    worker.warning = str(message.get("warning") or "")[:_MAX_WARNING_CHARS]
                    self.measure(worker)
                told = _capabilities(message.get("capabilities"))
                changed, worker.capabilities = told != worker.capabilities, told
                total, free = _count(message.get("slots_total")), _count(message.get("slots_available"))
                worker.slots_in_use = max(total - free, 0) if worker.loaded_once else 0
                self._report_slots(
                    worker,
                    Reported(
                        worker_id,
                        time.monotonic(),
                        WorkerState(message["state"]),
                        total,
                        free,
                    ),
                )
                if changed and worker_id in self._supervision.workers:
                    self._carry_out(Report(worker_id))

    async def check(self, worker: ManagedWorker) -> None:
        """Check the health of a worker."""
        worker_id = worker.spec.worker_id
        try:
            client = await worker.http_client()
            # A check that is still out when the next one is due is a miss.
            async with asyncio.timeout(self._supervision.policy.health_interval_s):
                health = await client.health()
        except (RbeeError, TimeoutError) as error:
            reason = error.message if isinstance(error, RbeeError) else "it did not answer in time"
            log.warning("health check missed", extra={"fields": {"worker_id": worker_id, "reason": reason}})
            self._dispatch(HealthCheckMissed(worker_id, time.monotonic(), reason))
            return
        worker.memory_bytes = health.memory_bytes or worker.process.memory_bytes()
        self.measure(worker)
        if worker_id not in self._supervision.workers:
            return
        self._report_slots(
            worker,
            HealthCheckAnswered(
                worker_id,
                time.monotonic(),
                health.state,
                health.slots_total,
                health.slots_available,
                health.stalled_s,
                worker.memory_bytes or 0,
            ),
        )

    def measure(self, worker: ManagedWorker) -> None:
        """Read how much memory a worker takes, and store that where it is more than before."""
        peak = worker.new_peak()
        if peak is not None:
            self._catalog.note_peak(worker.loaded, peak, int(time.time()))

    def _report_slots(self, worker: ManagedWorker, event: Reported | HealthCheckAnswered) -> None:
        """Dispatch free slots; one more than before is a request that has been answered."""
        before = self._supervision.workers[event.worker_id]
        self._dispatch(event)
        after = self._supervision.workers.get(event.worker_id)
        worker.count_load(before, after)
        if before.phase == "serving" and after is not None and after.slots_available > before.slots_available:
            self._quarantines.record_success(worker.spec.model_ref, worker.place)


def _capabilities(value: object) -> tuple[Capability, ...]:
    """Return what a worker tells that its model can do, as far as it is known here."""
    told = value if isinstance(value, list) else []
    return tuple(known for known in get_args(Capability) if known in told)


def _names(value: object) -> tuple[str, ...]:
    """Return the ids of clients that a worker reports, as many as can have requests there."""
    return tuple(str(name)[:MAX_CLIENT_CHARS] for name in value[:_MAX_CLIENTS]) if isinstance(value, list) else ()


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
