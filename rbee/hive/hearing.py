"""What is heard of the workers, of themselves and when asked, made into events for supervision."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from rbee.contracts.workers import WorkerState
from rbee.errors import RbeeError
from rbee.hive.member import Member
from rbee.hive.memory import LoadedModel
from rbee.hive.processes import WorkerProcess
from rbee.hive.quarantines import Quarantines
from rbee.hive.supervision import Answered, Bound, Event, Missed, Reported, Supervision

log = logging.getLogger(__name__)


class Hearing:
    """Hears the workers.

    Args:
        feed: takes the events.
        on_peak: told whenever a worker was seen to take more memory than before, in bytes.
        quarantines: told of answered requests.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        supervision: Supervision,
        feed: Callable[[Event], None],
        *,
        on_peak: Callable[[LoadedModel, int], None],
        quarantines: Quarantines,
        clock: Callable[[], float],
    ) -> None:
        self._supervision = supervision
        self._feed = feed
        self._on_peak = on_peak
        self._quarantines = quarantines
        self._clock = clock

    async def listen(self, member: Member, process: WorkerProcess) -> None:
        """Take in what a worker says over its lifeline, until that ends."""
        worker_id = member.order.worker_id
        while (message := await process.hear()) is not None:
            if "error" in message:
                member.error = RbeeError.from_body(message) or member.error
            elif "port" in message:
                self._feed(Bound(worker_id, self._clock()))
            elif message.get("state") in set(WorkerState):
                if WorkerState(message["state"]).serves:
                    member.device_bytes = _count(message.get("device_bytes")) or member.device_bytes
                    self.measure(member)
                self._feed_slots(
                    member,
                    Reported(
                        worker_id,
                        self._clock(),
                        WorkerState(message["state"]),
                        _count(message.get("slots_total")),
                        _count(message.get("slots_available")),
                    ),
                )

    async def check(self, member: Member) -> None:
        """Ask a worker how it is."""
        worker_id = member.order.worker_id
        try:
            client = await member.talk()
            # A check that is still out when the next one is due is a miss.
            async with asyncio.timeout(self._supervision.policy.health_interval_s):
                health = await client.health()
        except (RbeeError, TimeoutError) as error:
            reason = error.message if isinstance(error, RbeeError) else "it gave no answer in time"
            log.warning("health check missed", extra={"fields": {"worker_id": worker_id, "reason": reason}})
            self._feed(Missed(worker_id, self._clock(), reason))
            return
        member.memory_bytes = health.memory_bytes or member.process.memory_bytes()
        self.measure(member)
        if worker_id not in self._supervision.workers:
            return
        self._feed_slots(
            member,
            Answered(
                worker_id,
                self._clock(),
                health.state,
                health.slots_total,
                health.slots_available,
                health.stalled_s,
                member.memory_bytes or 0,
            ),
        )

    def measure(self, member: Member) -> None:
        """See how much a worker takes, and tell of it where it is more than before."""
        peak = member.new_peak()
        if peak is not None:
            self._on_peak(member.loaded, peak)

    def _feed_slots(self, member: Member, event: Reported | Answered) -> None:
        """Take in free slots; one more than before is a request that has been answered."""
        before = self._supervision.workers[event.worker_id]
        self._feed(event)
        after = self._supervision.workers.get(event.worker_id)
        member.count_load(before, after)
        if before.phase == "serving" and after is not None and after.slots_available > before.slots_available:
            self._quarantines.proved(member.order.model_ref, (member.order.backend, member.order.device))


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
