"""One worker of the crew: what it was told, its process, and what is known of it beyond supervision."""

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
from rbee.contracts.workers import SpawnRequest, WorkerInfo, WorkerStopReceipt
from rbee.errors import RbeeError
from rbee.hive.memory import LoadedModel
from rbee.hive.processes import WorkerOrder, WorkerProcess
from rbee.hive.returned import Return, Stopped
from rbee.hive.supervision import Life
from rbee.observe import metrics

if TYPE_CHECKING:
    from rbee.client.worker import WorkerClient

LAST_WORDS_S: Final = 1.0
# A peak that grew by less is not worth a row.
NOTABLE_GROWTH: Final = 1.01


@dataclass(slots=True)
class Member:
    """`error` is its own account of why it ends; `remark` is what the operator should know of its start.

    `device_bytes` is what it said to have taken of a GPU, `peak_bytes` the most that it was seen to take.
    It `served` once its model had been loaded.
    """

    order: WorkerOrder
    request: SpawnRequest
    url: str
    need_bytes: int
    loaded: LoadedModel
    process: WorkerProcess
    started_unix: float
    remark: str = ""
    error: RbeeError | None = None
    memory_bytes: int | None = None
    device_bytes: int | None = None
    peak_bytes: int = 0
    free_before: int | None = None
    served: bool = False
    killed: bool = False
    stop_began: float | None = None
    races: int = 0
    client: WorkerClient | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def info(self, life: Life, last_active_unix: float) -> WorkerInfo:
        """Give what lists show of it."""
        order = self.order
        return WorkerInfo(
            worker_id=order.worker_id,
            url=self.url,
            model_ref=order.model_ref,
            backend=order.backend,
            device=order.device,
            state=life.state,
            slots_total=life.slots_total or order.slots,
            slots_available=life.slots_available,
            pid=self.process.pid,
            context_length=order.context_length,
            memory_bytes=self.memory_bytes,
            started_unix=self.started_unix,
            last_active_unix=last_active_unix,
            detail=life.reason or self.remark,
        )

    def new_peak(self) -> int | None:
        """Look how much it takes of its device; give that if it is notably more than before."""
        on_cpu = self.order.backend is Backend.CPU
        taken = (self.process.peak_bytes() if on_cpu else self.device_bytes) or 0
        if taken <= self.peak_bytes * NOTABLE_GROWTH:
            return None
        self.peak_bytes = taken
        return taken

    def count_load(self, before: Life, after: Life | None) -> None:
        """Count its load where that has just ended well."""
        if not self.served and after is not None and after.phase == "serving":
            self.served = True
            metrics.HIVE_LOADS.add(1, "done")
            metrics.HIVE_LOAD_SECONDS.observe(after.since - before.active_at)

    def stopped(self) -> Stopped:
        """Say how to know what it left."""
        order = self.order
        return Stopped(
            self.process.pid, order.api_key, order.backend, order.device, self.device_bytes, self.free_before
        )

    def receipt(self, seconds: float, returned: Return) -> WorkerStopReceipt:
        """Say what became of it; only once its process has ended."""
        return WorkerStopReceipt(
            worker_id=self.order.worker_id,
            pid=self.process.pid,
            gone=True,
            killed=self.killed,
            seconds=round(seconds, 3),
            memory_returned_bytes=self.memory_bytes,
            memory_returned=returned.came_back,
            held_by=list(returned.held_by),
        )

    async def talk(self) -> WorkerClient:
        """Give the worker's client; its HTTP library is loaded outside the loop, on first use."""
        if self.client is None:
            module: Any = await asyncio.to_thread(importlib.import_module, "rbee.client.worker")
            self.client = module.WorkerClient(self.order.worker_id, self.url, self.order.api_key)
        return self.client

    async def stuck_in_loading(self, limit_s: float) -> RbeeError:
        """Ask a worker that did not load within *limit_s* seconds how far it is, and make the error of it."""
        reached = "no answer to how far it is"
        with contextlib.suppress(RbeeError, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                async for progress in (await self.talk()).loading():
                    reached = f"{progress.layers_loaded} of {progress.layers_total} layers ({progress.stage})"
                    break
        worker_id, log_path = self.order.worker_id, self.process.log_path
        return RbeeError(
            ErrorCode.LOADING_TIMEOUT,
            f"Worker {worker_id} did not load {self.order.model_ref} within {limit_s:g} s; it had reached {reached}.",
            details={"worker_id": worker_id, "state": reached, "log": str(log_path)},
            hint=f"Its log is {log_path}; raise loading_timeout_s of the hive for a slow disk.",
        )

    def obituary(self, reason: str, code: ErrorCode | None) -> WorkerGone:
        """Say why it is gone, with its own words and last lines where nobody asked it to go."""
        worker_id = self.order.worker_id
        if code is None:
            return WorkerGone(worker_id=worker_id, reason=reason)
        tail = self.process.log_tail()
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
            error=ErrorBody.model_validate(error.body()).error,
        )
