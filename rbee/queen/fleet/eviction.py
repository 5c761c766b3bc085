"""End idle workers, so that another model gets their memory."""

from __future__ import annotations

from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.contracts.references import short_reference
from rbee.contracts.workers import WorkerInfo, WorkerStopReceipt
from rbee.errors import RbeeError
from rbee.observe import metrics
from rbee.queen.fleet.control_channels import ControlChannels
from rbee.queen.fleet.state import FleetState
from rbee.queen.progress import ProgressFeed
from rbee.queen.scheduling.occupancy import name_of
from rbee.queen.scheduling.placement import SpawnWorker
from rbee.queen.scheduling.sites import is_idle


async def evict(fleet: FleetState, channels: ControlChannels, feed: ProgressFeed, site: SpawnWorker, name: str) -> None:
    """End the workers in the way of the model *name* at *site*, one after the other, each once its memory is back.

    Raises RbeeError: ALL_SLOTS_BUSY for one that somebody uses again, RAM_EXHAUSTED or VRAM_EXHAUSTED where memory did
    not come back, or what the hive says.
    """
    for worker_id in site.evict:
        link = fleet.registry.worker(worker_id)
        if link is None:
            continue  # it has ended by itself
        worker = link.worker
        if not is_idle(fleet.registry, worker):
            raise RbeeError(ErrorCode.ALL_SLOTS_BUSY, f"Worker {worker_id} on {site.node} is used again; it stays.")
        human = (
            f"hive {site.node}: ending {short_reference(name_of(worker))}, unused for {fleet.idle_for(worker):.0f} s, "
            f"to make room for {short_reference(name)}"
        )
        feed.narrate("queen-rbee", "evict", human, "🧹")
        try:
            receipt = await channels.client(site.node).stop(worker_id)
        except RbeeError as error:
            if error.code is not ErrorCode.WORKER_NOT_FOUND:
                raise
            continue  # it has ended by itself a moment ago, and its hive sees what memory there is now
        metrics.QUEEN_EVICTIONS.add(1)
        if receipt.memory_returned is False:
            raise _not_returned(worker, receipt)


def _not_returned(worker: WorkerInfo, receipt: WorkerStopReceipt) -> RbeeError:
    code = ErrorCode.RAM_EXHAUSTED if worker.backend is Backend.CPU else ErrorCode.VRAM_EXHAUSTED
    holders = [f"{holder.name} ({holder.pid})" for holder in receipt.held_by]
    return RbeeError(
        code,
        f"Worker {worker.worker_id} on {worker.node} has ended, but its memory has not come back; it is held by "
        f"{', '.join(holders) or 'nobody known'}.",
        details={"worker_id": worker.worker_id, "node": worker.node, "held_by": holders},
    )
