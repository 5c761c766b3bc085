"""What is to be done when a request does not end by itself: free its slot, and say why its worker broke off."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import WorkerAccess, WorkerInfo
from rbee.daemonkit.background import BackgroundTasks
from rbee.errors import RbeeError
from rbee.queen.fleet_watch import FleetWatch
from rbee.queen.upstream import UpstreamBroken
from rbee.queen.upstream_pool import UpstreamPool

log = logging.getLogger(__name__)
FREE_SLOT_WITHIN_S = 5.0
LAST_WORDS_WITHIN_S = 2.0


async def free_slot(pool: UpstreamPool, background: BackgroundTasks, link: WorkerAccess, request_id: str) -> None:
    """Have the worker drop the request, and wait a little for its word that the slot is free."""
    freeing = background.start(_dropped(pool, link, request_id), name=f"cancel of {request_id}")
    await asyncio.wait({freeing}, timeout=FREE_SLOT_WITHIN_S)


async def crash(fleet: FleetWatch, worker: WorkerInfo, tokens: int, reason: str) -> RbeeError:
    """Make the error of a worker that broke off, with its hive's account of the end if that comes soon."""
    gone = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORDS_WITHIN_S):
            gone = await fleet.until(lambda: fleet.registry.gone(worker.worker_id))
    why = gone.reason if gone else reason.rstrip(".")
    return RbeeError(
        ErrorCode.WORKER_CRASHED,
        f"Worker {worker.worker_id} on {worker.node} broke off after {tokens} tokens: {why}.",
        details={**where(worker), "tokens": tokens, "log_tail": gone.log_tail if gone else []},
        hint=f"Try again; its log says more: rbee-keeper logs --node {worker.node}",
    )


def where(worker: WorkerInfo) -> dict[str, Any]:
    """Give an error's details about a worker."""
    return {"worker_id": worker.worker_id, "node": worker.node}


async def _dropped(pool: UpstreamPool, link: WorkerAccess, request_id: str) -> None:
    worker = link.worker
    try:
        upstream = await pool.send(
            "DELETE", worker.url, f"/v1/inference/{request_id}", key=link.api_key, request_id=request_id
        )
    except (OSError, TimeoutError, UpstreamBroken) as error:
        log.info("slot not freed", extra={"fields": {"worker_id": worker.worker_id, "reason": str(error)}})
        return
    pool.release(worker.url, upstream)
