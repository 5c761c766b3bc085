"""Carry out what the reconciler decides, after each change of the fleet, of the declarations and of who waits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rbee.contracts.ids import LOCALHOST_NODE
from rbee.contracts.workers import WorkerAccess
from rbee.daemonkit.background import BackgroundTasks
from rbee.errors import RbeeError
from rbee.queen.fleet.control_channels import ControlChannels
from rbee.queen.fleet.estimates import learn_needs
from rbee.queen.fleet.state import FleetState
from rbee.queen.fleet.worker_start import WorkerStarter
from rbee.queen.hive import Place
from rbee.queen.local_hive.supervisor import LocalHive
from rbee.queen.progress import SharedJob
from rbee.queen.scheduling.request import PlacementRequest
from rbee.queen.serving.declarations import Declarations, Declared
from rbee.queen.serving.reconciler import (
    Circumstances,
    End,
    Failed,
    Reconciliation,
    Start,
    Status,
    reconcile,
)

if TYPE_CHECKING:
    from rbee.contracts.served import ServedInfo, ServedModel

log = logging.getLogger(__name__)

PAUSE_S: Final = 0.25  # between two looks, however much changes
TICK_S: Final = 2.0  # between two looks where nothing changes: times pass
FIRST_CONTACT_S: Final = 6.0  # for which hives that were not heard of yet are waited for at the start
LOST_GRACE_S: Final = 3.0  # for which what ran on a node whose hive is lost still counts
ASK_S: Final = 5.0  # between two questions what a model takes
FIRST_DELAY_S: Final = 1.0
LAST_DELAY_S: Final = 60.0
_DOUBLINGS: Final = 6  # from the first delay to beyond the last


@dataclass(slots=True)
class _Failures:
    """The failed starts of one model in a row: how many on each device, the last reason, when the next may begin."""

    places: Counter[Place] = field(default_factory=Counter)
    reason: str = ""
    until: float = 0.0


@dataclass(slots=True)
class _Work:
    """What is under way: stops by worker id, and the failed starts by name."""

    ending: set[str] = field(default_factory=set)
    failures: dict[str, _Failures] = field(default_factory=dict)


class ServingLoop:
    """Keep what is declared served, and make room for requests that wait for memory.

    Args:
        queen: the id of this queen.
        keeps_replicas: whether declared replicas are started without a request; a queen that ends with its keeper
            starts none.
        local: the local hive, which is started where a declared model may need it; None where there is none.
        is_stopping: tells whether the queen is ending: then nothing is done any more.
        clock: seconds of a steady clock.
    """

    def __init__(
        self,
        fleet: FleetState,
        declarations: Declarations,
        starter: WorkerStarter,
        channels: ControlChannels,
        background: BackgroundTasks,
        *,
        queen: str,
        keeps_replicas: bool,
        local: LocalHive | None,
        is_stopping: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        self._fleet = fleet
        self._declarations = declarations
        self._starter = starter
        self._channels = channels
        self._background = background
        self._queen = queen
        self._keeps_replicas = keeps_replicas
        self._local = local
        self._is_stopping = is_stopping
        self._clock = clock
        self._work = _Work()
        declarations.on_change = self._declared_otherwise
        self._status: dict[str, Status] = {}
        self._asked: dict[str, float] = {}
        self._starting_local: asyncio.Task[None] | None = None

    def status(self, name: str) -> Status:
        """Return how a declared model stands."""
        status = self._status.get(name, Status("on demand"))
        declared = self._declarations.find(name)
        if status != Status("on demand") or declared is None:
            return status
        # Nobody waits for it now, but who asked was told.
        failure = self._starter.failure(declared.model)
        return Status(status.state, f"its last start failed: {failure}" if failure else "")

    def info(self, declared: Declared) -> ServedInfo:
        """Return a declared model as lists show it, with how it stands."""
        from rbee.contracts.served import ServedInfo, ServedWorker  # no queen starts with them

        model = declared.model
        status = self.status(model.name)
        filed = self._fleet.registry.index.of([model.name])
        workers = [each.link.worker for each in filed if each.link.worker.served == model.name]
        return ServedInfo(
            declared=model,
            source=declared.source,
            place=declared.place,
            revision=model.revision,
            state=status.state,
            reason=status.reason,
            workers=[ServedWorker.model_validate(worker, from_attributes=True) for worker in workers],
        )

    def declared(self) -> list[ServedModel]:
        """List what is to be kept."""
        models = [declared.model for declared in self._declarations.all()]
        return models if self._keeps_replicas else [model.model_copy(update={"replicas": 0}) for model in models]

    def plan(self, models: list[ServedModel]) -> Reconciliation:
        """Return what would be done next if *models* were declared."""
        return reconcile(models, self._fleet.view(), self._circumstances())

    def _declared_otherwise(self) -> None:
        """Try again at once what failed: it may be declared in another way now."""
        self._work.failures.clear()
        self._asked.clear()
        self._fleet.changed()

    async def run(self) -> None:
        """Look and act, until canceled."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_CONTACT_S):
                await self._fleet.wait_for(lambda: not self._fleet.registry.untried or None)
        while True:
            changed = self._fleet.next_change()
            self._look()
            await asyncio.sleep(PAUSE_S)
            # The end of the grace of a lost node is no change that anybody tells.
            tick = PAUSE_S if self._fleet.lost_within(LOST_GRACE_S) else TICK_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(tick):
                    await changed.wait()
            if not changed.is_set() and self._fleet.room_queue:
                self._fleet.changed()  # who waits for memory looks again: times have passed

    def _look(self) -> None:
        """Decide once, and begin what was decided."""
        fleet, declared = self._fleet, self.declared()
        if self._is_stopping() or not (declared or self._status or fleet.occupancy.claims or fleet.room_queue):
            return
        if self._local is not None and any(model.replicas for model in declared):
            self._start_local_hive(self._local)
        found = self.plan(declared)
        self._status = found.status
        self._learn_needs(declared)
        fleet.retire(found.retiring)
        fleet.occupancy.claims = found.claims
        for step in found.steps:
            match step:
                case Start(model=model, site=site, reason=reason):
                    fields = {"model": model.name, "node": site.node, "reason": reason}
                    log.info("starting a declared model", extra={"fields": fields})
                    # It is under way from here on, so that the next look counts it.
                    job = self._starter.start_replica(model, site)
                    self._background.start(self._follow(step, job), name=f"start of {model.name}")
                case End():
                    self._work.ending.add(step.worker.worker_id)
                    self._background.start(self._end(step), name=f"end of {step.worker.worker_id}")

    def _start_local_hive(self, local: LocalHive) -> None:
        """Have the local hive started where it does not run: a request would, and a declaration waits for none."""
        if self._fleet.connected(LOCALHOST_NODE) or not (self._starting_local is None or self._starting_local.done()):
            return

        async def ensure() -> None:
            with contextlib.suppress(RbeeError):  # the queen logs it, and the next look tries again
                await local.ensure()

        self._starting_local = self._background.start(ensure(), name="local hive for declared models")

    def _learn_needs(self, declared: list[ServedModel]) -> None:
        """Ask hives now and then what a model takes for which there seems to be no memory: they measure it."""
        now = self._clock()
        for model in declared:
            lacks = self._status[model.name].state in ("missing", "degraded")
            if lacks and now - self._asked.get(model.name, -ASK_S) >= ASK_S:
                self._asked[model.name] = now
                request = PlacementRequest(model.model, served=model)
                work = learn_needs(self._fleet, self._channels, request)
                self._background.start(work, name=f"need of {model.name}")

    def _circumstances(self) -> Circumstances:
        now = self._clock()
        failed = {
            name: Failed(each.reason, each.until > now, each.places) for name, each in self._work.failures.items()
        }
        return Circumstances(
            starting=self._starter.starts({model.name: model.revision for model in self.declared()}),
            placing=self._starter.placing(),
            ending=frozenset(self._work.ending),
            failed=failed,
            lost=self._fleet.lost_within(LOST_GRACE_S),
            waiting=tuple(self._fleet.room_queue.values()),
            queen=self._queen,
        )

    async def _follow(self, step: Start, job: SharedJob[WorkerAccess]) -> None:
        """Wait for a start; where it fails, the next is tried later."""
        model, site = step.model, step.site
        try:
            await job.result()
        except RbeeError as error:
            declared = self._declarations.find(model.name)
            if declared is None or declared.model.revision != model.revision:
                return  # it was ended for what is declared now, and says nothing of that
            failures = self._work.failures.setdefault(model.name, _Failures())
            count = failures.places.total() + 1
            delay = delay_after(count)
            failures.places[site.room.place] += 1
            times = "once" if count == 1 else f"{count} times"
            why = f"{site.node}: {error.message.rstrip('.')}"
            failures.reason = f"{why} (failed {times}; tried again after {delay:.0f} s)"
            failures.until = self._clock() + delay
            fields = {"model": model.name, "node": site.node, "code": error.code.value, "reason": error.message}
            log.warning("a declared model could not be started", extra={"fields": {**fields, "retry_in_s": delay}})
        else:
            self._work.failures.pop(model.name, None)

    async def _end(self, step: End) -> None:
        worker = step.worker
        fields = {"worker_id": worker.worker_id, "node": worker.node, "reason": step.reason}
        log.info("ending a worker", extra={"fields": fields})
        try:
            await self._channels.client(worker.node).stop(worker.worker_id)
        except RbeeError as error:
            log.warning("a worker was not ended", extra={"fields": {**fields, "code": error.code.value}})
        finally:
            self._work.ending.discard(worker.worker_id)


def delay_after(failures: int) -> float:
    """Return for how long the next start of a model waits after so many that failed, in seconds."""
    return min(FIRST_DELAY_S * 2.0 ** min(failures - 1, _DOUBLINGS), LAST_DELAY_S)
