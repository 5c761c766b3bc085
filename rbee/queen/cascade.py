"""The queen's ending: running tasks finish, every hive is told to stop, the local one is reaped."""

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
from rbee.queen.board import TaskBoard
from rbee.queen.channels import Channels
from rbee.queen.fleet_watch import FleetWatch
from rbee.queen.local_hive import LocalHive

log = logging.getLogger(__name__)
REAP_WITHIN_S = 15.0
_LOOK_AGAIN_S = 0.05


class Cascade:
    """End everything that the queen owns, once, and account for it.

    Args:
        spawned: the workers that this queen started.
        drain_timeout_s: how long running tasks may go on, unless somebody asked to wait for them.
    """

    def __init__(
        self,
        fleet: FleetWatch,
        channels: Channels,
        board: TaskBoard,
        local: LocalHive | None,
        *,
        spawned: Collection[str],
        drain_timeout_s: float,
    ) -> None:
        self._fleet = fleet
        self._channels = channels
        self._board = board
        self._local = local
        self._spawned = spawned
        self._drain_timeout_s = drain_timeout_s
        self._ending: frozenset[str] | None = None
        self._leaving = False
        self._limited = asyncio.Event()
        self._limited.set()

    def wait_for_tasks(self) -> None:
        """Let running tasks finish, however long that takes, until somebody asks for the limit."""
        self._limited.clear()

    def limit(self) -> None:
        """Put the limit on running tasks, as it is from the beginning."""
        self._limited.set()

    def end_hives(self, nodes: Collection[str]) -> None:
        """Let the hives of all other machines go on; they only lose the workers that this queen started."""
        self._ending = frozenset({*nodes, LOCALHOST_NODE})
        self._leaving = False

    def leave_hives(self) -> None:
        """Let the hives of all other machines go on with all their workers, for the next queen to adopt."""
        self._ending = frozenset({LOCALHOST_NODE})
        self._leaving = True

    def end_all_hives(self) -> None:
        """End every hive, as it is from the beginning."""
        self._ending = None
        self._leaving = False

    async def __call__(self) -> CascadeReceipt:
        """Do it and give the receipt."""
        began = time.monotonic()
        await self._tasks_ended()
        pids = [worker.pid for worker in self._fleet.registry.workers(LOCALHOST_NODE) if worker.pid is not None]
        if self._local is not None and self._local.pid is not None:
            pids.append(self._local.pid)
        hives = [hive for hive in self._fleet.registry.hives() if hive.connected or hive.node == LOCALHOST_NODE]
        lost = [hive for hive in self._fleet.registry.hives() if hive not in hives and self._ends(hive.node)]
        going_on = [] if self._leaving else [hive for hive in hives if not self._ends(hive.node)]
        kept = {hive.node: [worker for worker in hive.workers if worker in self._spawned] for hive in going_on}
        await self._channels.hang_up()
        receipts = await asyncio.gather(
            *(self._hive_ended(hive.node) for hive in hives if self._ends(hive.node)),
            *(self._workers_ended(node, workers) for node, workers in kept.items() if workers),
        )
        for hive in lost:
            why = hive.last_error or "it was never reached"
            receipts.append(ShutdownReceipt(node=hive.node, gone=False, error=f"not connected: {why}"))
        receipt = CascadeReceipt(hives=receipts, pids=[*pids, os.getpid()], seconds=time.monotonic() - began)
        log.info("cascade done", extra={"fields": {"complete": receipt.complete, "seconds": round(receipt.seconds, 2)}})
        return receipt

    def _ends(self, node: str) -> bool:
        return self._ending is None or node in self._ending

    async def _workers_ended(self, node: str, workers: list[str]) -> ShutdownReceipt:
        """Stop workers of a hive that goes on."""
        client = self._channels.client(node)
        outcomes = await asyncio.gather(*(client.stop(worker) for worker in workers), return_exceptions=True)
        stopped: list[WorkerStopReceipt] = []
        for worker, outcome in zip(workers, outcomes, strict=True):
            if isinstance(outcome, RbeeError):
                # One that ended by itself meanwhile is as gone as it should be.
                gone = outcome.code is ErrorCode.WORKER_NOT_FOUND
                stopped.append(WorkerStopReceipt(worker_id=worker, gone=gone))
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                stopped.append(outcome)
        return ShutdownReceipt(node=node, workers=stopped, gone=False, kept=True)

    async def _tasks_ended(self) -> None:
        empty = asyncio.ensure_future(self._board.until_empty())
        limited = asyncio.ensure_future(self._limited.wait())
        try:
            await asyncio.wait({empty, limited}, return_when=asyncio.FIRST_COMPLETED)
            if not empty.done():
                await asyncio.wait({empty}, timeout=self._drain_timeout_s)
            if not empty.done():
                await self._board.end_all()
        finally:
            empty.cancel()
            limited.cancel()

    async def _hive_ended(self, node: str) -> ShutdownReceipt:
        told = False
        try:
            client = self._channels.client(node)
            receipt = (await client.shutdown()).model_copy(update={"node": node})
            told = True
        except RbeeError as error:
            receipt = ShutdownReceipt(node=node, gone=False, error=error.message)
        if told and node != LOCALHOST_NODE and (doubt := await doubt_of_end(client.url)) is not None:
            receipt = receipt.model_copy(update={"gone": False, "error": doubt})
        if node == LOCALHOST_NODE and self._local is not None:
            by_itself = await self._local.reap(told=told, within_s=REAP_WITHIN_S)
            # Its process is gone now, and a worker never outlives its hive.
            receipt = receipt.model_copy(update={"gone": True, "error": None if by_itself else "it had to be killed"})
        return receipt


async def doubt_of_end(url: str, within_s: float = REAP_WITHIN_S) -> str | None:
    """Wait until nobody listens at *url* any more, as after the end of a hive, whose word alone is no proof.

    Gives why that cannot be said; None where it is so.
    """
    at = urlsplit(url)
    try:
        async with asyncio.timeout(within_s):
            while True:
                _, writer = await asyncio.open_connection(at.hostname, at.port)
                writer.close()
                await asyncio.sleep(_LOOK_AGAIN_S)
    except ConnectionRefusedError:
        return None
    except TimeoutError:
        return f"it said that it ends, but {url} is not closed after {within_s:g} s"
    except OSError as error:
        return f"it said that it ends, but its machine cannot be asked any more ({error.strerror or error})"
