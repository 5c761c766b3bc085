"""Clean up after a request that did not end by itself: free its slot, and describe how its worker failed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import WorkerAccess, WorkerInfo
from rbee.daemonkit.background import BackgroundTasks
from rbee.errors import RbeeError
from rbee.queen.fleet.state import FleetState
from rbee.queen.relay.connection import UpstreamError
from rbee.queen.relay.pool import UpstreamPool
from rbee.queen.relay.token_usage import canceled_usage
from rbee.queen.usage.ledger import Usage

log = logging.getLogger(__name__)
CANCEL_WAIT_S = 5.0
EXIT_REPORT_WAIT_S = 2.0


async def cancel_on_worker(
    pool: UpstreamPool, background: BackgroundTasks, link: WorkerAccess, request_id: str, *, lost: bool = False
) -> Usage | None:
    """Cancel the request on its worker, and wait a little for the answer that the slot is free.

    Nobody waits for a machine that was *lost*. Returns what the request used, where the worker says so.
    """
    canceling = background.start(_delete(pool, link, request_id), name=f"cancel of {request_id}")
    await asyncio.wait({canceling}, timeout=0 if lost else CANCEL_WAIT_S)
    return canceling.result() if canceling.done() and not canceling.cancelled() else None


async def crash_error(fleet: FleetState, worker: WorkerInfo, tokens: int, reason: str) -> RbeeError:
    """Build the error of a worker whose answer was cut, with what its hive reports of its end if that comes soon."""
    gone = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(EXIT_REPORT_WAIT_S):
            gone = await fleet.wait_for(lambda: fleet.registry.gone(worker.worker_id), worker.worker_id)
    why = gone.reason if gone else reason.rstrip(".")
    return RbeeError(
        ErrorCode.WORKER_CRASHED,
        f"Worker {worker.worker_id} on {worker.node} broke off after {tokens} tokens: {why}.",
        details={**worker_details(worker), "tokens": tokens, "log_tail": gone.log_tail if gone else []},
        # It may be what ended the worker, and would then end the next one.
        hint=f"The request is not retried; see the worker's log: rbee-keeper logs --node {worker.node}",
    )


def lost_error(worker: WorkerInfo, reason: str) -> RbeeError:
    """Build the error of a worker whose machine was lost before it answered."""
    return RbeeError(
        ErrorCode.CONNECTION_TIMEOUT,
        f"Worker {worker.worker_id} on {worker.node} received the request, and then {reason}.",
        details=worker_details(worker),
    )


def worker_details(worker: WorkerInfo) -> dict[str, Any]:
    """Return an error's details about a worker."""
    return {"worker_id": worker.worker_id, "node": worker.node}


async def _delete(pool: UpstreamPool, link: WorkerAccess, request_id: str) -> Usage | None:
    worker = link.worker
    try:
        upstream = await pool.send(
            "DELETE",
            worker.url,
            f"/v1/inference/{request_id}",
            key=link.api_key,
            node=worker.node,
            request_id=request_id,
        )
    except (OSError, TimeoutError, UpstreamError) as error:
        log.info("slot not freed", extra={"fields": {"worker_id": worker.worker_id, "reason": str(error)}})
        return None
    pool.release(worker.url, upstream)
    return canceled_usage(upstream.usage)
