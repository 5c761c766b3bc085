"""Keep the workers of this machine: start them, list them, carry out what supervision decides, stop them."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from rbee.contracts.control import WorkerChanged
from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import SpawnRequest, WorkerAccess, WorkerState, WorkerStopReceipt
from rbee.daemonkit.background import BackgroundTasks
from rbee.errors import RbeeError
from rbee.hive.control import ControlChannels
from rbee.hive.devices.monitor import DeviceMonitor
from rbee.hive.models.catalog import Catalog
from rbee.hive.quarantines import Quarantines
from rbee.hive.supervision import (
    Bound,
    Check,
    Drained,
    Event,
    Exited,
    Instruction,
    Kill,
    LeaseRenewed,
    Policy,
    RemoveWorker,
    Replace,
    Report,
    ShutDownHive,
    Stop,
    StopAsked,
    Supervision,
    Tick,
)
from rbee.hive.supervision.quarantine import Place
from rbee.hive.workers import model_files
from rbee.hive.workers.managed_worker import KEPT, LAST_WORDS_S, ManagedWorker
from rbee.hive.workers.memory_reclaim import ReclaimChecker
from rbee.hive.workers.model_files import ModelFileWatch
from rbee.hive.workers.monitor import WorkerMonitor
from rbee.hive.workers.replacements import Replacements
from rbee.hive.workers.spawner import WorkerSpawner
from rbee.hive.workers.stopping import WorkerStops, shut_down
from rbee.hive.yields import Yields
from rbee.observe import metrics

log = logging.getLogger(__name__)
TICK_S: Final = 0.5
MAX_PORT_RETRIES: Final = 5


class WorkerPool:
    """All workers of this machine, by id.

    The pool owns the spawner, which starts processes and knows nothing of the pool. Everything that happens to a
    worker becomes an event for supervision (`_dispatch`), and what supervision answers is done here (`_carry_out`).

    Args:
        spawner: starts the processes.
        policy: the time limits of supervision.
        reclaim: checks whether the memory of a stopped worker came back.
        devices: read again after a worker is gone.
        catalog: stores the memory that loads were seen to take.
        quarantines: counts crashes and answered requests.
        yields: the devices on which no worker is started.
        channels: the queens, which are sent every change.
        background: runs the tasks that watch the workers.
        shut_down: shuts down the hive.
    """

    def __init__(
        self,
        spawner: WorkerSpawner,
        policy: Policy,
        *,
        reclaim: ReclaimChecker,
        devices: DeviceMonitor,
        catalog: Catalog,
        quarantines: Quarantines,
        yields: Yields,
        channels: ControlChannels,
        background: BackgroundTasks,
        shut_down: Callable[[], object],
    ) -> None:
        self._spawner = spawner
        self._supervision = Supervision(policy, lease_renewed_at=time.monotonic())
        self._stops = WorkerStops(reclaim)
        self._devices = devices
        self._quarantines = quarantines
        self._yields = yields
        self._channels = channels
        self._background = background
        self._shut_down = shut_down
        self._monitor = WorkerMonitor(
            self._supervision, self._dispatch, self._carry_out, catalog=catalog, quarantines=quarantines
        )
        self._workers: dict[str, ManagedWorker] = {}
        self._replacements = Replacements(self.spawn)
        self._model_files = ModelFileWatch(self._workers.values, self._dispatch)
        self._orphans_removed = asyncio.Event()
        # One spawn at a time, so that no memory and no port is promised twice.
        self._spawning = asyncio.Lock()
        # One removal of logs at a time: two would find each other's files gone.
        self._pruning = asyncio.Lock()

    # Queries

    def all(self) -> list[WorkerAccess]:
        """Return all workers with their keys, oldest first."""
        return [self.get(worker_id) for worker_id in self._workers]

    def get(self, worker_id: str) -> WorkerAccess:
        """Return one worker with its key. Raises RbeeError WORKER_NOT_FOUND."""
        worker = self._find(worker_id)
        status = self._supervision.workers[worker_id]
        last_active_unix = time.time() - (time.monotonic() - status.active_at)
        return WorkerAccess(worker=worker.info(status, last_active_unix), api_key=worker.spec.api_key)

    def using(self, model_ref: str) -> list[str]:
        """Return the ids of the workers that have a model loaded."""
        return [name for name, worker in self._workers.items() if worker.spec.model_ref == model_ref]

    def need_on(self, backend: Backend) -> int:
        """Return the bytes that the workers on the devices of *backend* were expected to take in all."""
        return sum(worker.need_bytes for worker in self._workers.values() if worker.spec.backend is backend)

    def pids(self) -> set[int]:
        """Return the process ids of all workers."""
        return {worker.process.pid for worker in self._workers.values()}

    async def estimate(self, request: SpawnRequest) -> dict[Backend, int]:
        """Return what a worker would take, in bytes, by backend. Raises as the spawner does."""
        return await self._spawner.estimate(request)

    def has_key(self, key: str) -> bool:
        """Return whether *key* is the key of some worker."""
        return any(_same_key(worker.spec.api_key, key) for worker in self._workers.values())

    # Starting

    async def spawn(self, request: SpawnRequest) -> WorkerAccess:
        """Start a worker; it is loading when this returns.

        Raises RbeeError: INVALID_MODEL_REF, whatever download and preflight find wrong, QUARANTINED, DEVICE_YIELDED,
        DRAINING, WORKER_START_FAILED.
        """
        model = await self._spawner.ensure_model(request.model)
        await self._orphans_removed.wait()
        async with self._spawning:
            if request.join and (loading := self._loading(request, model.entry.reference)) is not None:
                return loading
            replaced = self._replacements.find(request, model.entry.reference)
            if replaced is not None:
                request = request.model_copy(update=replaced.request.model_dump(include=KEPT))
            self._quarantines.admit(request, model.entry.reference)
            barred = self._quarantines.quarantined() | self._yields.barred()
            plan = await self._spawner.plan(request, model, reserved=self._reserved, ports=self._ports, barred=barred)
            if self._supervision.draining:
                raise RbeeError(ErrorCode.DRAINING, "The hive is stopping and starts no workers.")
            files = await asyncio.to_thread(model_files.look, Path(plan.spec.model_path))
            process = await self._spawner.launch(plan.spec, plan.need_bytes)
            self._register(ManagedWorker.of(plan, request, process, files, time.time()))
            if replaced is not None:
                self._replacements.settle(replaced)
        access = self.get(plan.spec.worker_id)
        return access.model_copy(update={"worker": access.worker.model_copy(update={"state": WorkerState.LOADING})})

    def bind(self, worker_id: str, key: str) -> None:
        """Take a worker's report that its port is bound.

        Raises RbeeError WORKER_NOT_FOUND, or INVALID_API_KEY where *key* is not that worker's.
        """
        if not _same_key(self._find(worker_id).spec.api_key, key):
            raise RbeeError(ErrorCode.INVALID_API_KEY, f"This is not the key of worker {worker_id}.")
        self._dispatch(Bound(worker_id, time.monotonic()))

    def renew_lease(self) -> None:
        """Note that a queen is connected and alive."""
        self._dispatch(LeaseRenewed(time.monotonic()))

    # Stopping

    async def stop(self, worker_id: str, reason: str) -> WorkerStopReceipt:
        """Stop a worker, wait until it is gone and check that its memory came back.

        Raises RbeeError WORKER_NOT_FOUND.
        """
        return (await self._stop([self._find(worker_id)], reason))[0]

    async def stop_on(
        self, places: Collection[Place], reason: str, drain_s: float | None
    ) -> list[tuple[Place, WorkerStopReceipt]]:
        """Stop the workers of devices that are yielded; return a receipt for each, with its device.

        What runs may take *drain_s* seconds to end, without it as long as with every stop.
        """
        async with self._spawning:  # what is about to be started there is stopped too
            workers = [worker for worker in self._workers.values() if worker.place in places]
        limit_s = self._supervision.policy.graceful_s if drain_s is None else drain_s
        receipts = await self._stop(workers, reason, limit_s)
        return list(zip((worker.place for worker in workers), receipts, strict=True))

    async def stop_all(self, reason: str) -> list[WorkerStopReceipt]:
        """Stop all workers at once and wait until they are gone; none can be started any more."""
        await self._spawner.close()
        receipts: list[WorkerStopReceipt] = []
        while not self._supervision.draining or self._workers:  # one that is started meanwhile is stopped as well
            workers = list(self._workers.values())
            receipts += await self._stops.carry_out(workers, lambda: self._dispatch(Drained(time.monotonic(), reason)))
        return receipts

    async def _stop(
        self, workers: list[ManagedWorker], reason: str, drain_s: float | None = None
    ) -> list[WorkerStopReceipt]:
        def begin() -> None:
            for worker in workers:
                self._dispatch(StopAsked(worker.spec.worker_id, time.monotonic(), reason, drain_s))

        return await self._stops.carry_out(workers, begin)

    async def run(self) -> None:
        """Remove what an earlier hive left behind, then let time pass for supervision, until cancelled."""
        try:
            await asyncio.to_thread(self._spawner.remove_orphans)
            await asyncio.to_thread(self._spawner.prune_logs, ())
        finally:
            self._orphans_removed.set()
        self._background.start(self._model_files.run(), name="files of models")
        while True:
            await asyncio.sleep(TICK_S)
            self._dispatch(Tick(time.monotonic()))
            self._quarantines.publish()
            # A spare is imported only while no worker starts: that one needs the processor more.
            if not (self._supervision.draining or self._spawning.locked() or self._reserved):
                await self._spawner.ensure_spare()

    # Inside

    @property
    def _ports(self) -> set[int]:
        """The ports that workers have, or are about to have."""
        return {worker.spec.port for worker in self._workers.values()}

    @property
    def _reserved(self) -> dict[Place, int]:
        """The bytes, by device, that workers which have not loaded yet will take."""
        reserved: dict[Place, int] = {}
        for worker_id, worker in self._workers.items():
            if self._supervision.workers[worker_id].phase in ("starting", "loading"):
                reserved[worker.place] = reserved.get(worker.place, 0) + worker.need_bytes
        return reserved

    def _find(self, worker_id: str) -> ManagedWorker:
        worker = self._workers.get(worker_id)
        if worker is None:
            raise RbeeError(
                ErrorCode.WORKER_NOT_FOUND,
                f"There is no worker '{worker_id}' on this machine.",
                details={"worker_id": worker_id, "workers": list(self._workers)},
            )
        return worker

    def _loading(self, request: SpawnRequest, model_ref: str) -> WorkerAccess | None:
        """Return a worker that is loading the model on a device that *request* accepts."""
        fitting = (self.get(name) for name, worker in self._workers.items() if worker.fits(request, model_ref))
        return next((access for access in fitting if access.worker.state is WorkerState.LOADING), None)

    def _register(self, worker: ManagedWorker) -> None:
        spec = worker.spec
        self._workers[spec.worker_id] = worker
        self._dispatch(worker.spawned(time.monotonic()))
        self._devices.budget_changed()
        self._background.start(self._watch(worker), name="watch")
        metrics.HIVE_STARTS.add()
        fields = {"worker_id": spec.worker_id, "pid": worker.process.pid, "port": spec.port, "model": spec.model_ref}
        log.info("worker started", extra={"fields": {**fields, **({"remark": worker.remark} if worker.remark else {})}})

    def _dispatch(self, event: Event) -> None:
        for instruction in self._supervision.handle(event):
            self._carry_out(instruction)

    def _carry_out(self, instruction: Instruction) -> None:
        if isinstance(instruction, ShutDownHive):
            log.warning("shutting down", extra={"fields": {"reason": instruction.reason}})
            self._shut_down()
            return
        worker = self._workers[instruction.worker_id]
        match instruction:
            case Check():
                self._background.start(self._monitor.check(worker), name="check")
            case Stop(reason=reason, unused=unused, drain_s=drain_s):
                metrics.HIVE_EVICTIONS.add(float(unused))
                log.info("stopping a worker", extra={"fields": {"worker_id": worker.spec.worker_id, "reason": reason}})
                self._begin_stop(worker)
                if drain_s is None:
                    worker.process.terminate()
                else:
                    self._background.start(shut_down(worker, drain_s), name="shut down")
            case Kill(reason=reason, code=code):
                self._background.start(self._kill(worker, reason, code), name="kill")
            case Report():
                self._channels.publish(WorkerChanged(link=self.get(worker.spec.worker_id)))
            case RemoveWorker(reason=reason, code=code):
                self._remove(worker, reason, code)
            case Replace():
                self._background.start(self._replacements.carry_out(worker), name="replace")

    def _begin_stop(self, worker: ManagedWorker) -> None:
        if not worker.stopping:
            worker.stopping = True
            worker.memory_bytes = worker.process.memory_bytes() or worker.memory_bytes
            self._monitor.measure(worker)

    async def _kill(self, worker: ManagedWorker, reason: str, code: ErrorCode | None) -> None:
        self._begin_stop(worker)
        if code is ErrorCode.LOADING_TIMEOUT:
            worker.error = await worker.loading_timeout(self._supervision.policy.loading_s)
        log.warning("killing a worker", extra={"fields": {"worker_id": worker.spec.worker_id, "reason": reason}})
        worker.killed = True
        worker.requests_stopped = worker.requests_stopped or worker.slots_in_use
        worker.process.kill()

    async def _watch(self, worker: ManagedWorker) -> None:
        """Take what a worker reports, and notice its end at once."""
        listening = asyncio.ensure_future(self._monitor.listen(worker, worker.process))
        code = await worker.process.wait()
        # Its last report may still be on its way through the lifeline.
        await asyncio.wait({listening}, timeout=LAST_WORDS_S)
        listening.cancel()
        cause = worker.process.release_group()
        # A worker that noticed itself that its model changed has ended: that is no crash.
        await self._model_files.check([worker])
        if not await self._retry_on_another_port(worker):
            self._dispatch(Exited(worker.spec.worker_id, time.monotonic(), code, cause))

    async def _retry_on_another_port(self, worker: ManagedWorker) -> bool:
        """Start a worker again if another program took its port between the choice and the bind."""
        status = self._supervision.workers[worker.spec.worker_id]
        taken = worker.error is not None and worker.error.code is ErrorCode.PORT_IN_USE
        if not taken or status.phase != "starting" or worker.port_retries >= MAX_PORT_RETRIES:
            return False
        before = worker.spec.port
        try:
            spec = replace(worker.spec, port=self._spawner.choose_port(self._ports).port)
            worker.process = await self._spawner.launch(spec, worker.need_bytes)
        except RbeeError as error:
            worker.error = error
            return False
        worker.spec, worker.error, worker.port_retries = spec, None, worker.port_retries + 1
        worker.remark = f"port {before} in use by another program, took {spec.port}"
        log.warning("worker moved", extra={"fields": {"worker_id": spec.worker_id, "remark": worker.remark}})
        self._dispatch(worker.spawned(time.monotonic()))
        self._background.start(self._watch(worker), name="watch")
        return True

    def _remove(self, worker: ManagedWorker, reason: str, code: ErrorCode | None) -> None:
        gone = worker.gone_message(reason, code)
        self._channels.publish(gone)
        fields: dict[str, Any] = {"worker_id": gone.worker_id, "reason": reason}
        if gone.error is not None:
            self._quarantines.record_crash(worker.spec.model_ref, worker.place, gone.error.code, reason, gone.clients)
            fields |= {"code": gone.error.code.value, "last_lines": gone.log_tail[-5:]}
        metrics.HIVE_ENDS.add(1, "no" if gone.crashed else "yes")
        if not worker.loaded_once:
            metrics.HIVE_LOADS.add(1, gone.error.code.value if gone.error is not None else "stopped")
        log.log(logging.ERROR if gone.crashed else logging.INFO, "worker gone", extra={"fields": fields})
        del self._workers[gone.worker_id]
        self._devices.budget_changed()
        if worker.client is not None:
            self._background.start(worker.client.close(), name="close")
        worker.gone.set()
        self._background.start(self._clean_up(), name="clean up")

    async def _clean_up(self) -> None:
        """Read what the devices have free now, and remove old logs."""
        await self._devices.look()
        async with self._pruning:
            await asyncio.to_thread(self._spawner.prune_logs, list(self._workers))


def _same_key(ours: str, given: str) -> bool:
    return hmac.compare_digest(ours.encode(), given.encode())
