"""Follow a worker from its spawn until it serves, or say why it never will."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from rbee.client.worker import WorkerClient
from rbee.contracts.control import WorkerGone
from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import LoadingProgress
from rbee.contracts.workers import WorkerAccess, WorkerInfo
from rbee.errors import RbeeError
from rbee.queen.fleet_watch import FleetWatch
from rbee.queen.story import Story

ASK_AGAIN_S = 0.2


@dataclass(slots=True)
class _Seen:
    """The latest progress, for the message of a timeout."""

    progress: LoadingProgress | None = None

    def __str__(self) -> str:
        if self.progress is None:
            return "it has not said anything yet"
        if not self.progress.layers_total:
            return f"it is at '{self.progress.stage}'"
        return f"{self.progress.layers_loaded} of {self.progress.layers_total} layers are loaded"


async def until_it_serves(
    fleet: FleetWatch, story: Story, node: str, link: WorkerAccess, *, timeout_s: float
) -> WorkerAccess:
    """Wait until the worker takes requests, with its progress in *story*.

    Raises:
        RbeeError: LOADING_TIMEOUT after *timeout_s* seconds; the worker's own error, or WORKER_START_FAILED, where it
            ended; CONNECTION_TIMEOUT where its hive was lost.
    """
    worker = link.worker
    seen = _Seen()
    following = asyncio.create_task(_follow(link, story, seen), name=f"loading of {worker.worker_id}")
    try:
        async with asyncio.timeout(timeout_s):
            return await fleet.until(lambda: _serving(fleet, node, worker))
    except TimeoutError as error:
        raise RbeeError(
            ErrorCode.LOADING_TIMEOUT,
            f"Worker {worker.worker_id} on {node} did not load {worker.model_ref} within {timeout_s:g} s: {seen}.",
            details={
                "worker_id": worker.worker_id,
                "node": node,
                "log": log_of(worker.worker_id),
                "progress": seen.progress.model_dump(exclude_none=True) if seen.progress else None,
            },
            hint=f"Look at its log ({log_of(worker.worker_id)}): rbee-keeper logs --node {node}; "
            "for a slow disk raise loading_timeout_s of the queen.",
        ) from error
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def log_of(worker_id: str) -> str:
    """Name the log of a worker, as a path on its node."""
    return f"$RBEE_HOME/logs/{worker_id}.log"


def ended_error(node: str, worker_id: str, gone: WorkerGone) -> RbeeError:
    """Say why a worker ended before it was ready, with its own words where it had some."""
    details = {"worker_id": worker_id, "node": node, "log": log_of(worker_id), "log_tail": gone.log_tail}
    if gone.error is not None:
        own = gone.error
        return RbeeError(
            own.code, own.message, details={**own.details, **details}, hint=own.hint or None, param=own.param
        )
    return RbeeError(
        ErrorCode.WORKER_START_FAILED,
        f"Worker {worker_id} on {node} ended before it was ready: {gone.reason}.",
        details=details,
    )


def _serving(fleet: FleetWatch, node: str, worker: WorkerInfo) -> WorkerAccess | None:
    """Give the worker if it serves, None while it does not yet. Raises RbeeError if it never will."""
    gone = fleet.registry.gone(worker.worker_id)
    if gone is not None:
        raise ended_error(node, worker.worker_id, gone)
    hive = fleet.registry.hive(node)
    if hive is None or not hive.connected:
        because = f": {hive.last_error}" if hive is not None and hive.last_error else ""
        raise RbeeError(
            ErrorCode.CONNECTION_TIMEOUT, f"The hive on {node} was lost while its worker was loading{because}."
        )
    link = hive.workers.get(worker.worker_id)
    if link is None:
        raise RbeeError(
            ErrorCode.WORKER_START_FAILED, f"The hive on {node} no longer knows of worker {worker.worker_id}."
        )
    return link if link.worker.state.serves else None


async def _follow(link: WorkerAccess, story: Story, seen: _Seen) -> None:
    """Show the worker's progress; one that has not bound its port yet is asked again."""
    client = WorkerClient(link.worker.worker_id, link.worker.url, link.api_key)
    try:
        while True:
            try:
                async for progress in client.loading():
                    seen.progress = progress
                    story.loading(progress)
            except RbeeError as error:
                if error.code is not ErrorCode.CONNECTION_TIMEOUT:
                    return
                await asyncio.sleep(ASK_AGAIN_S)
            else:
                return
    finally:
        await client.close()
