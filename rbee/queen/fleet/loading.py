"""Follow a worker while it loads its model, until it serves or has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rbee.client.worker import WorkerClient
from rbee.contracts.control import WorkerGone
from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import LoadingProgress
from rbee.contracts.workers import WorkerAccess, WorkerInfo
from rbee.errors import RbeeError
from rbee.queen.fleet.state import FleetState

POLL_S: Final = 0.2


@dataclass(slots=True)
class _LatestProgress:
    """The latest progress of a load, for the message of a timeout."""

    progress: LoadingProgress | None = None

    def __str__(self) -> str:
        if self.progress is None:
            return "it has reported no progress"
        if not self.progress.layers_total:
            return f"it is at '{self.progress.stage}'"
        return f"{self.progress.layers_loaded} of {self.progress.layers_total} layers are loaded"


async def wait_until_serving(
    fleet: FleetState, node: str, link: WorkerAccess, tell: Callable[[LoadingProgress], None], *, timeout_s: float
) -> WorkerAccess:
    """Wait until the worker accepts requests; *tell* is called with its progress.

    Raises:
        RbeeError: LOADING_TIMEOUT after *timeout_s* seconds; the worker's own error, or WORKER_START_FAILED, where it
            ended; ALL_SLOTS_BUSY where it was ended, as declared models are declared otherwise; CONNECTION_TIMEOUT
            where its hive was lost.
    """
    worker = link.worker
    latest = _LatestProgress()
    following = asyncio.create_task(_follow_loading(link, tell, latest), name=f"loading of {worker.worker_id}")
    try:
        async with asyncio.timeout(timeout_s):
            return await fleet.wait_for(lambda: _serving(fleet, node, worker))
    except TimeoutError as error:
        log_path = _log_path(worker.worker_id)
        raise RbeeError(
            ErrorCode.LOADING_TIMEOUT,
            f"Worker {worker.worker_id} on {node} did not load {worker.model_ref} within {timeout_s:g} s: {latest}.",
            details={
                "worker_id": worker.worker_id,
                "node": node,
                "log": log_path,
                "progress": latest.progress.model_dump(exclude_none=True) if latest.progress else None,
            },
            hint=f"See its log ({log_path}): rbee-keeper logs --node {node}; "
            "for a slow disk raise loading_timeout_s of the queen.",
        ) from error
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def _serving(fleet: FleetState, node: str, worker: WorkerInfo) -> WorkerAccess | None:
    """Return the worker if it serves, None while it does not yet. Raises RbeeError if it never will."""
    gone = fleet.registry.gone(worker.worker_id)
    if gone is not None:
        raise _start_error(fleet, node, worker, gone)
    hive = fleet.registry.hive(node)
    if hive is None or not hive.connected:
        because = f": {hive.last_error}" if hive is not None and hive.last_error else ""
        raise RbeeError(
            ErrorCode.CONNECTION_TIMEOUT, f"The hive on {node} was lost while its worker was loading{because}."
        )
    link = hive.workers.get(worker.worker_id)
    if link is None:
        raise RbeeError(
            ErrorCode.WORKER_START_FAILED, f"The hive on {node} does not list worker {worker.worker_id} any more."
        )
    return link if link.worker.state.serves else None


def _start_error(fleet: FleetState, node: str, worker: WorkerInfo, gone: WorkerGone) -> RbeeError:
    """Describe why a worker ended before it was ready, with its own error where it reported one."""
    worker_id, hive = worker.worker_id, fleet.registry.hive(node)
    details = {"worker_id": worker_id, "node": node, "log": _log_path(worker_id), "log_tail": gone.log_tail}
    if gone.error is not None:
        own = gone.error
        return RbeeError(
            own.code, own.message, details={**own.details, **details}, hint=own.hint or None, param=own.param
        )
    code = ErrorCode.WORKER_START_FAILED
    if hive is not None and hive.yielded_at(worker.backend, worker.device):
        code = ErrorCode.DEVICE_YIELDED
    elif worker.served is not None and not gone.crashed:
        code = ErrorCode.ALL_SLOTS_BUSY  # another one is about to take its place: whoever waits looks again
    return RbeeError(
        code,
        f"Worker {worker_id} on {node} ended before it was ready: {gone.reason}.",
        details=details,
    )


def _log_path(worker_id: str) -> str:
    """Return the log of a worker, as a path on its node."""
    return f"$RBEE_HOME/logs/{worker_id}.log"


async def _follow_loading(link: WorkerAccess, tell: Callable[[LoadingProgress], None], latest: _LatestProgress) -> None:
    """Tell the worker's progress; one that has not bound its port yet is asked again."""
    client = WorkerClient(link.worker.worker_id, link.worker.url, link.api_key)
    try:
        while True:
            try:
                async for progress in client.loading():
                    latest.progress = progress
                    tell(progress)
            except RbeeError as error:
                if error.code is not ErrorCode.CONNECTION_TIMEOUT:
                    return
                await asyncio.sleep(POLL_S)
            else:
                return
    finally:
        await client.close()
