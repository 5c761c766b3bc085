"""Hold what is known of one worker beyond supervision: its specification, its process, and what it reported."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rbee.contracts.control import WorkerGone
from rbee.contracts.devices import Backend
from rbee.contracts.error_body import ErrorBody
from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import Capability
from rbee.contracts.workers import SpawnRequest, WorkerInfo, WorkerOptions, WorkerStopReceipt
from rbee.errors import RbeeError
from rbee.hive.memory import LoadedModel, memory_limit
from rbee.hive.supervision import Spawned, WorkerStatus
from rbee.hive.supervision.quarantine import Place
from rbee.hive.workers.last_words import last_words
from rbee.hive.workers.memory_reclaim import ReclaimResult, StoppedWorker
from rbee.hive.workers.model_files import FileState
from rbee.hive.workers.process import WorkerProcess, WorkerSpec
from rbee.observe import metrics

if TYPE_CHECKING:
    from rbee.client.worker import WorkerClient
    from rbee.hive.workers.spawner import SpawnPlan

LAST_WORDS_S: Final = 1.0
LAST_PROGRESS_S: Final = 5.0  # a machine on which nothing loads in time is slow to answer too
# A peak that grew by less is not stored.
NOTABLE_GROWTH: Final = 1.01

KEPT: Final = {*WorkerOptions.model_fields, "keep", "served", "revision", "declared_by"}
"""The fields of a request that a worker keeps when another one takes its place."""


@dataclass(slots=True)
class ManagedWorker:
    """A worker whose process exists, or has just ended.

    `error` is why it ends, as it reported itself; `remark` is what the operator should know of its start,
    `warning` and `capabilities` what the worker itself tells of its model.
    `files` are those of its model as they were when it was started.
    `device_bytes` is the GPU memory that it reported, `peak_bytes` the most memory that it was seen to take;
    `slots_in_use` is what it last reported, `requests_stopped` how many requests had not ended when it had to.
    `loaded_once` is true once its model was loaded; `clients` are those whose requests run, or ran last, by opaque ids.
    """

    spec: WorkerSpec
    request: SpawnRequest
    need_bytes: int
    cache_bytes: int
    loaded: LoadedModel
    idle_s: float | None
    process: WorkerProcess
    started_unix: float
    files: tuple[FileState, ...] = ()
    remark: str = ""
    warning: str = ""
    capabilities: tuple[Capability, ...] = ()
    error: RbeeError | None = None
    memory_bytes: int | None = None
    device_bytes: int | None = None
    peak_bytes: int = 0
    free_before: int | None = None
    loaded_once: bool = False
    clients: tuple[str, ...] = ()
    killed: bool = False
    slots_in_use: int = 0
    requests_stopped: int = 0
    stopping: bool = False
    port_retries: int = 0
    client: WorkerClient | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def place(self) -> Place:
        """Return its device."""
        return (self.spec.backend, self.spec.device)

    @classmethod
    def of(
        cls,
        plan: SpawnPlan,
        request: SpawnRequest,
        process: WorkerProcess,
        files: tuple[FileState, ...],
        started_unix: float,
    ) -> ManagedWorker:
        """Return the worker that was started as *plan* says."""
        return cls(
            plan.spec,
            request,
            plan.need_bytes,
            plan.cache_bytes,
            plan.loaded,
            plan.idle_s,
            process,
            started_unix,
            files=files,
            remark=plan.remark,
        )

    def spawned(self, at: float) -> Spawned:
        """Return the event of its start."""
        return Spawned(self.spec.worker_id, at, memory_limit(self.need_bytes), self.idle_s)

    def info(self, life: WorkerStatus, last_active_unix: float) -> WorkerInfo:
        """Return the entry for lists of workers."""
        spec, asked = self.spec, self.request
        return WorkerInfo(
            worker_id=spec.worker_id,
            url=spec.url,
            model_ref=spec.model_ref,
            served=asked.served,
            revision=asked.revision,
            declared_by=asked.declared_by,
            backend=spec.backend,
            device=spec.device,
            state=life.state,
            slots_total=life.slots_total or spec.load.slots,
            slots_available=life.slots_available,
            pid=self.process.pid,
            context_length=spec.load.context_length,
            memory_bytes=self.memory_bytes,
            need_bytes=self.need_bytes,
            weights_bytes=self.loaded.size_bytes,
            cache_bytes=self.cache_bytes,
            keep=asked.keep,
            options=asked.options,
            started_unix=self.started_unix,
            last_active_unix=last_active_unix,
            capabilities=list(self.capabilities),
            detail=life.reason or "; ".join(filter(None, (self.remark, self.warning))),
        )

    def fits(self, request: SpawnRequest, model_ref: str) -> bool:
        """Return whether it has the model *model_ref*, on a device that *request* accepts, for the same declaration.

        A worker of a declared model is for its requests only, and those that name no declaration get no such worker.
        """
        spec, own = self.spec, self.request
        accepted = request.backend in (None, spec.backend) and request.device in (None, spec.device)
        same = request.served == own.served and (own.served is None or request.revision == own.revision)
        return accepted and same and spec.model_ref == model_ref

    def new_peak(self) -> int | None:
        """Return how much of its device the worker takes, if that is notably more than before."""
        on_cpu = self.spec.backend is Backend.CPU
        taken = (self.process.peak_bytes() if on_cpu else self.device_bytes) or 0
        if taken <= self.peak_bytes * NOTABLE_GROWTH:
            return None
        self.peak_bytes = taken
        return taken

    def count_load(self, before: WorkerStatus, after: WorkerStatus | None) -> None:
        """Count the load in the metrics where it has just succeeded."""
        if not self.loaded_once and after is not None and after.phase == "serving":
            self.loaded_once = True
            metrics.HIVE_LOADS.add(1, "done")
            metrics.HIVE_LOAD_SECONDS.observe(after.since - before.active_at)

    def stopped(self) -> StoppedWorker:
        """Return what is needed to check its memory after its end."""
        spec = self.spec
        return StoppedWorker(
            self.process.pid, spec.api_key, spec.backend, spec.device, self.device_bytes, self.free_before
        )

    def receipt(self, seconds: float, returned: ReclaimResult) -> WorkerStopReceipt:
        """Return the receipt of its stop; call it once the process has ended."""
        return WorkerStopReceipt(
            worker_id=self.spec.worker_id,
            pid=self.process.pid,
            gone=True,
            killed=self.killed,
            seconds=round(seconds, 3),
            requests_stopped=self.requests_stopped,
            memory_returned_bytes=self.memory_bytes,
            memory_returned=returned.came_back,
            held_by=list(returned.held_by),
        )

    async def http_client(self) -> WorkerClient:
        """Return the client of the worker; its HTTP library is imported in a thread, on first use."""
        if self.client is None:
            module: Any = await asyncio.to_thread(importlib.import_module, "rbee.client.worker")
            self.client = module.WorkerClient(self.spec.worker_id, self.spec.url, self.spec.api_key)
        return self.client

    async def loading_timeout(self, limit_s: float) -> RbeeError:
        """Return the error for a worker that did not load within *limit_s* seconds, with how far it got."""
        reached = "unknown progress, because it did not answer"
        with contextlib.suppress(RbeeError, TimeoutError):
            async with asyncio.timeout(LAST_PROGRESS_S):
                async for progress in (await self.http_client()).loading():
                    reached = f"{progress.layers_loaded} of {progress.layers_total} layers ({progress.stage})"
                    break
        worker_id, log_path = self.spec.worker_id, self.process.log_path
        return RbeeError(
            ErrorCode.LOADING_TIMEOUT,
            f"Worker {worker_id} did not load {self.spec.model_ref} within {limit_s:g} s; it had reached {reached}.",
            details={"worker_id": worker_id, "state": reached, "log": str(log_path)},
            hint=f"Its log is {log_path}; raise loading_timeout_s of the hive for a slow disk.",
        )

    def gone_message(self, reason: str, code: ErrorCode | None) -> WorkerGone:
        """Return why it is gone; after a crash with its own error and the last lines of its log."""
        worker_id = self.spec.worker_id
        if code is None:
            return WorkerGone(worker_id=worker_id, reason=reason)
        tail = last_words(self.process.log_tail())
        error = self.error or RbeeError(
            code,
            f"Worker {worker_id} is gone: {reason}.",
            details={"worker_id": worker_id, "log": str(self.process.log_path), "log_tail": tail[-5:]},
        )
        return WorkerGone(
            worker_id=worker_id,
            reason=reason,
            crashed=True,
            log_tail=tail,
            clients=list(self.clients),
            error=ErrorBody.model_validate(error.body()).error,
        )
