"""Assemble the queen from its parts, start it and stop it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from rbee.client.retry import CONNECT_TIMEOUT_S
from rbee.config.paths import Paths
from rbee.contracts.control import Hello
from rbee.contracts.errors import ErrorCode
from rbee.contracts.hives import CascadeReceipt, NodeInfo, NodeSpec
from rbee.contracts.ids import LOCALHOST_NODE, new_id
from rbee.daemonkit.background import BackgroundTasks
from rbee.daemonkit.drain import Drain
from rbee.errors import RbeeError
from rbee.net import host_port
from rbee.queen.client_ids import ClientIds
from rbee.queen.database import Database
from rbee.queen.fleet.control_channels import ControlChannels
from rbee.queen.fleet.node_store import HiveKeys, NodeStore
from rbee.queen.fleet.readiness import Readiness
from rbee.queen.fleet.state import FleetState
from rbee.queen.fleet.worker_start import WorkerStarter
from rbee.queen.keys.store import ClientKeys
from rbee.queen.local_hive.supervisor import LocalHive
from rbee.queen.relay.connection import UpstreamLost
from rbee.queen.relay.pool import UpstreamPool
from rbee.queen.settings import QueenSettings
from rbee.queen.shutdown import FleetShutdown
from rbee.queen.tasks.registry import TaskRegistry
from rbee.queen.tasks.scheduler import Scheduler
from rbee.queen.tasks.task import QueenServices

log = logging.getLogger(__name__)


class Queen:
    """The parts of the queen, for its routes.

    Args:
        database: open, if there is one.
        client_keys: loaded.
        local: the local hive, launched or not; None where it has none.
        key: its own API key, from which the ids of clients are derived.
        aliases: short names for model references.
        ephemeral: whether it ends with the keeper that spawned it.
        on_key: called with every key that must not be logged.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        settings: QueenSettings,
        paths: Paths,
        database: Database,
        client_keys: ClientKeys,
        local: LocalHive | None,
        *,
        key: str,
        aliases: Mapping[str, str],
        ephemeral: bool,
        on_key: Callable[[str], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.paths = paths
        self.local = local
        self.ephemeral = ephemeral
        self.started_unix = now()
        self.client_ids = ClientIds(key)
        self.client_keys = client_keys
        self._database = database
        self._store = NodeStore(database)
        self._keys = HiveKeys(paths)
        self._on_key = on_key
        self._now = now
        background = self.background = BackgroundTasks()
        self.fleet = FleetState(now)
        self.channels = ControlChannels(
            self.fleet, background, queen_id=new_id("queen"), on_reached=self._reached, on_lost=self._lost
        )
        self.starter = WorkerStarter(
            self.fleet, self.channels, background, loading_timeout_s=settings.loading_timeout_s
        )
        self.pool = UpstreamPool(CONNECT_TIMEOUT_S, settings.no_token_timeout_s)
        readiness = Readiness(self.fleet, local, local_timeout_s=settings.hive_start_timeout_s)
        scheduler = Scheduler(
            self.fleet,
            readiness,
            self.starter,
            self.pool,
            background,
            queue_timeout_s=settings.queue_timeout_s,
        )
        self.tasks = TaskRegistry(
            QueenServices(
                scheduler,
                self.fleet,
                self.pool,
                background,
                self.client_ids,
                settings.no_token_timeout_s,
                record=client_keys.record,
                tokens_today=client_keys.tokens_today,
                now=now,
            ),
            aliases=aliases,
            max_tasks=settings.max_tasks,
            max_tasks_per_client=settings.max_tasks_per_client,
        )
        self.readiness = readiness
        self._shutdown = FleetShutdown(
            self.fleet,
            self.channels,
            self.tasks,
            local,
            spawned=self.starter.spawned,
            drain_timeout_s=settings.drain_timeout_s,
        )
        if settings.leave_hives_on_signal:
            self._shutdown.leave_hives()
        self.drain: Drain[CascadeReceipt] = Drain(self._shutdown, name="the queen")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the channels and start the local hive; close at the end whatever is still open."""
        async with self.background:
            self.background.start(self.client_keys.keep_writing(), name="usage")
            for node in await self._store.list():
                await self._dial(node)
            if self.local is not None:
                self.fleet.add_node(LOCALHOST_NODE, "")
                self.local.attach(self._local_up, self._local_down)
                self.background.start(self._start_local(), name="local hive")
            try:
                yield
            finally:
                await self.channels.close_all()
                self.pool.close()
                await self.client_keys.write(last=True)
                await self._database.close()

    async def end(self, *, when_idle: bool, hives: list[str] | None = None) -> CascadeReceipt:
        """End the queen and everything that it owns; *when_idle* lets running tasks take as long as they need.

        *hives* are the machines whose hives end with it, None for all. Of several calls, the one that ends more wins.
        """
        stopping = self.drain.draining.is_set()
        if hives is None:
            self._shutdown.end_all_hives()
        elif not stopping:
            self._shutdown.end_hives(hives)
        if not when_idle:
            self._shutdown.limit()
        elif not stopping:
            self._shutdown.wait_for_tasks()
        return await self.drain.finish()

    async def nodes(self) -> list[NodeInfo]:
        """List the node registry."""
        return await self._store.list()

    async def add_node(self, spec: NodeSpec) -> NodeInfo:
        """Register a node and open a channel to its hive. Raises RbeeError NODE_EXISTS."""
        if spec.node_name == LOCALHOST_NODE and self.local is not None:
            raise RbeeError(
                ErrorCode.NODE_EXISTS,
                f"{LOCALHOST_NODE} is this queen's own machine, which needs no registration.",
                hint="Choose another name, or run the queen with --local-hive false.",
            )
        info = await self._store.add(spec)
        if spec.hive_key:
            await asyncio.to_thread(self._keys.write, spec.node_name, spec.hive_key)
        await self._dial(info)
        return info

    async def remove_node(self, node: str) -> None:
        """Remove a node, its key and its channel; its hive keeps running. Raises RbeeError NODE_NOT_FOUND."""
        await self._store.remove(node)
        await asyncio.to_thread(self._keys.remove, node)
        await self.channels.forget(node)

    async def _dial(self, node: NodeInfo) -> None:
        key = await asyncio.to_thread(self._keys.read, node.node_name)
        if key:
            self._on_key(key)
        await self.channels.open(node.node_name, f"http://{host_port(node.ssh_host, node.hive_port)}", key)

    async def _start_local(self) -> None:
        assert self.local is not None
        try:
            await self.local.ensure()
        except RbeeError as error:
            log.error("local hive not started", extra={"fields": {"reason": error.message, **error.details}})
            self.fleet.lost(LOCALHOST_NODE, error.message)

    async def _local_up(self, url: str, key: str) -> None:
        self._on_key(key)
        await self.channels.open(LOCALHOST_NODE, url, key)

    async def _local_down(self, reason: str) -> None:
        await self.channels.close(LOCALHOST_NODE, reason)

    async def _reached(self, node: str, hello: Hello) -> None:
        self.tasks.hive_lost(node, None)
        for link in hello.workers:
            self._on_key(link.api_key)
        await self._log_failure(self._store.record_reached(node, hello.detection, now=self._now()))

    async def _lost(self, node: str, reason: str) -> None:
        self.pool.abort_unanswered(node, UpstreamLost(f"its machine was lost: {reason}"))
        self.tasks.hive_lost(node, reason)
        await self._log_failure(self._store.record_lost(node, reason))

    async def _log_failure(self, change: Awaitable[None]) -> None:
        """Write to the node registry what is only shown to people: a database that fails then is logged, not fatal."""
        try:
            await change
        except RbeeError as error:
            log.error("node registry not updated", extra={"fields": {"reason": error.message}})
