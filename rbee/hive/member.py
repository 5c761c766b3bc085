"""One worker of the crew: what it was told, its process, and what is known of it beyond supervision."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rbee.contracts.control import WorkerGone
from rbee.contracts.error_body import ErrorBody
from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import SpawnRequest, WorkerInfo, WorkerStopReceipt
from rbee.errors import RbeeError
from rbee.hive.processes import WorkerOrder, WorkerProcess
from rbee.hive.supervision import Life

if TYPE_CHECKING:
    from rbee.client.worker import WorkerClient


@dataclass(slots=True)
class Member:
    """`error` is its own account of why it ends; `remark` is what the operator should know of its start."""

    order: WorkerOrder
    request: SpawnRequest
    url: str
    need_bytes: int
    process: WorkerProcess
    started_unix: float
    remark: str = ""
    error: RbeeError | None = None
    memory_bytes: int | None = None
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

    def receipt(self, seconds: float) -> WorkerStopReceipt:
        """Say what became of it; only once its process has ended."""
        return WorkerStopReceipt(
            worker_id=self.order.worker_id,
            pid=self.process.pid,
            gone=True,
            killed=self.killed,
            seconds=round(seconds, 3),
            memory_returned_bytes=self.memory_bytes,
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
