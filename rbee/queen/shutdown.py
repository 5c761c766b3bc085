"""End what the queen owns: let running tasks finish, shut down the hives, and stop the local one."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Collection
from urllib.parse import urlsplit

from rbee.contracts.errors import ErrorCode
from rbee.contracts.hives import CascadeReceipt, ShutdownReceipt
from rbee.contracts.ids import LOCALHOST_NODE
from rbee.contracts.workers import WorkerStopReceipt
from rbee.errors import RbeeError
from rbee.queen.fleet.control_channels import ControlChannels
from rbee.queen.fleet.state import FleetState
from rbee.queen.local_hive.supervisor import LocalHive
from rbee.queen.tasks.registry import TaskRegistry

log = logging.getLogger(__name__)
STOP_TIMEOUT_S = 15.0
REFUSED_WITHIN_S = 1.0
_POLL_S = 0.05


class FleetShutdown:
    """End everything that the queen owns, once, and report it.

    Args:
        spawned: the workers that this queen started.
        drain_timeout_s: how long running tasks may go on, unless `wait_for_tasks` is called.
    """

    def __init__(
        self,
        fleet: FleetState,
        channels: ControlChannels,
        tasks: TaskRegistry,
        local: LocalHive | None,
        *,
        spawned: Collection[str],
        drain_timeout_s: float,
    ) -> None:
        self._fleet = fleet
        self._channels = channels
        self._tasks = tasks
        self._local = local
        self._spawned = spawned
        self._drain_timeout_s = drain_timeout_s
        self._ending: frozenset[str] | None = None
        self._leaving = False
        self._limited = asyncio.Event()
        self._limited.set()

    def wait_for_tasks(self) -> None:
        """Let running tasks finish, however long that takes, until `limit` is called."""
        self._limited.clear()

    def limit(self) -> None:
        """Limit how long running tasks may go on; this is the default."""
        self._limited.set()

    def end_hives(self, nodes: Collection[str]) -> None:
        """End only the hives of *nodes* and the local one; the others only lose the workers that this queen started."""
        self._ending = frozenset({*nodes, LOCALHOST_NODE})
        self._leaving = False

    def leave_hives(self) -> None:
        """Leave the hives of all other machines running with all their workers, for the next queen to adopt."""
        self._ending = frozenset({LOCALHOST_NODE})
        self._leaving = True

    def end_all_hives(self) -> None:
        """End every hive; this is the default."""
        self._ending = None
        self._leaving = False

    async def __call__(self) -> CascadeReceipt:
        """End everything and return the receipt."""
        began = time.monotonic()
        await self._end_tasks()
        pids = [worker.pid for worker in self._fleet.registry.workers(LOCALHOST_NODE) if worker.pid is not None]
        if self._local is not None and self._local.pid is not None:
            pids.append(self._local.pid)
        hives = [hive for hive in self._fleet.registry.hives() if hive.connected or hive.node == LOCALHOST_NODE]
        out = [hive for hive in self._fleet.registry.hives() if hive not in hives and self._is_ending(hive.node)]
        refused = await asyncio.gather(*(wait_until_closed(hive.url, within_s=REFUSED_WITHIN_S) for hive in out))
        # Where the machine answers that nobody listens, no hive is left.
        lost = [hive for hive, doubt in zip(out, refused, strict=True) if doubt is not None]
        going_on = [] if self._leaving else [hive for hive in hives if not self._is_ending(hive.node)]
        kept = {hive.node: [worker for worker in hive.workers if worker in self._spawned] for hive in going_on}
        await self._channels.hang_up()
        receipts = await asyncio.gather(
            *(self._end_hive(hive.node) for hive in hives if self._is_ending(hive.node)),
            *(self._end_workers(node, workers) for node, workers in kept.items() if workers),
        )
        for hive in lost:
            why = hive.last_error or "never reached"
            receipts.append(ShutdownReceipt(node=hive.node, gone=False, error=f"not connected: {why}"))
        receipt = CascadeReceipt(hives=receipts, pids=[*pids, os.getpid()], seconds=time.monotonic() - began)
        log.info(
            "shutdown done", extra={"fields": {"complete": receipt.complete, "seconds": round(receipt.seconds, 2)}}
        )
        return receipt

    def _is_ending(self, node: str) -> bool:
        return self._ending is None or node in self._ending

    async def _end_workers(self, node: str, workers: list[str]) -> ShutdownReceipt:
        """Stop workers of a hive that keeps running."""
        client = self._channels.client(node)
        outcomes = await asyncio.gather(*(client.stop(worker) for worker in workers), return_exceptions=True)
        stopped: list[WorkerStopReceipt] = []
        for worker, outcome in zip(workers, outcomes, strict=True):
            if isinstance(outcome, RbeeError):
                # One that ended by itself meanwhile is gone, as it should be.
                gone = outcome.code is ErrorCode.WORKER_NOT_FOUND
                stopped.append(WorkerStopReceipt(worker_id=worker, gone=gone))
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                stopped.append(outcome)
        return ShutdownReceipt(node=node, workers=stopped, gone=False, kept=True)

    async def _end_tasks(self) -> None:
        empty = asyncio.ensure_future(self._tasks.wait_until_empty())
        limited = asyncio.ensure_future(self._limited.wait())
        try:
            await asyncio.wait({empty, limited}, return_when=asyncio.FIRST_COMPLETED)
            if not empty.done():
                await asyncio.wait({empty}, timeout=self._drain_timeout_s)
            if not empty.done():
                await self._tasks.abort_all()
        finally:
            empty.cancel()
            limited.cancel()

    async def _end_hive(self, node: str) -> ShutdownReceipt:
        accepted = False
        try:
            client = self._channels.client(node)
            receipt = (await client.shutdown()).model_copy(update={"node": node})
            accepted = True
        except RbeeError as error:
            receipt = ShutdownReceipt(node=node, gone=False, error=error.message)
        if accepted and node != LOCALHOST_NODE and (doubt := await wait_until_closed(client.url)) is not None:
            receipt = receipt.model_copy(update={"gone": False, "error": doubt})
        if node == LOCALHOST_NODE and self._local is not None:
            by_itself = await self._local.stop(told=accepted, within_s=STOP_TIMEOUT_S)
            # Its process is gone now, and a worker never outlives its hive.
            receipt = receipt.model_copy(update={"gone": True, "error": None if by_itself else "it had to be killed"})
        return receipt


async def wait_until_closed(url: str, within_s: float = STOP_TIMEOUT_S) -> str | None:
    """Wait until nobody listens at *url*: a hive's own receipt does not prove that it has ended.

    Return why that is uncertain; None where nobody listens.
    """
    at = urlsplit(url)
    try:
        async with asyncio.timeout(within_s):
            while True:
                _, writer = await asyncio.open_connection(at.hostname, at.port)
                writer.close()
                await asyncio.sleep(_POLL_S)
    except ConnectionRefusedError:
        return None
    except TimeoutError:
        return f"it accepted the shutdown, but {url} still listens after {within_s:g} s"
    except OSError as error:
        return f"it accepted the shutdown, but its machine cannot be reached any more ({error.strerror or error})"
