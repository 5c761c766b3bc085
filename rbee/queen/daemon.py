"""The queen herself: what she is made of, how she starts and how she ends."""

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
from rbee.daemonkit import log_rotation
from rbee.daemonkit.background import BackgroundTasks
from rbee.daemonkit.drain import Drain
from rbee.errors import RbeeError
from rbee.queen.board import TaskBoard
from rbee.queen.cascade import Cascade
from rbee.queen.channels import Channels
from rbee.queen.client_keys import ClientKeys
from rbee.queen.fleet_watch import FleetWatch
from rbee.queen.local_hive import LocalHive
from rbee.queen.readiness import Readiness
from rbee.queen.seating import Means
from rbee.queen.settings import QueenSettings
from rbee.queen.starts import Starts
from rbee.queen.store import HiveKeys, Store
from rbee.queen.turns import Turns
from rbee.queen.upstream_pool import UpstreamPool

log = logging.getLogger(__name__)


class Queen:
    """Everything a route may need, made of its parts.

    Args:
        local: the local hive, launched or not; None where she has none.
        aliases: short names for model references.
        ephemeral: whether she ends with the keeper that spawned her.
        on_key: told of every key that must not be logged.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        settings: QueenSettings,
        paths: Paths,
        store: Store,
        local: LocalHive | None,
        *,
        aliases: Mapping[str, str],
        ephemeral: bool,
        on_key: Callable[[str], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.paths = paths
        self.local = local
        self.ephemeral = ephemeral
        self.started_unix = now()
        self.client_keys = ClientKeys(paths)
        self.client_keys.load()
        self._store = store
        self._keys = HiveKeys(paths)
        self._on_key = on_key
        self._now = now
        self._log_max_mb = settings.log_max_mb
        background = self.background = BackgroundTasks()
        self.fleet = FleetWatch(now)
        self.channels = Channels(
            self.fleet, background, queen_id=new_id("queen"), on_reached=self._reached, on_lost=self._lost
        )
        self.starts = Starts(self.fleet, self.channels, background, loading_timeout_s=settings.loading_timeout_s)
        self.pool = UpstreamPool(CONNECT_TIMEOUT_S, settings.no_token_timeout_s)
        readiness = Readiness(self.fleet, local, local_timeout_s=settings.hive_start_timeout_s)
        self.turns = Turns()
        means = Means(
            self.fleet,
            readiness,
            self.starts,
            self.pool,
            background,
            self.turns,
            no_token_timeout_s=settings.no_token_timeout_s,
            queue_timeout_s=settings.queue_timeout_s,
        )
        self.board = TaskBoard(
            means,
            aliases=aliases,
            max_tasks=settings.max_tasks,
            max_tasks_per_client=settings.max_tasks_per_client,
        )
        self.readiness = readiness
        self._cascade = Cascade(
            self.fleet,
            self.channels,
            self.board,
            local,
            spawned=self.starts.spawned,
            drain_timeout_s=settings.drain_timeout_s,
        )
        if settings.leave_hives_on_signal:
            self._cascade.leave_hives()
        self.drain: Drain[CascadeReceipt] = Drain(self._cascade, name="the queen")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the channels and the local hive, and close at the end whatever is still open."""
        async with self.background:
            self.background.start(
                log_rotation.watch(self.paths.logs, "queen-rbee.log", max_mb=self._log_max_mb), name="log files"
            )
            for node in await self._store.list():
                await self._dial(node)
            if self.local is not None:
                self.fleet.add_node(LOCALHOST_NODE, "")
                self.local.attach(self._local_up, self._local_down)
                self.background.start(self._local_begun(), name="local hive")
            try:
                yield
            finally:
                await self.channels.close_all()
                self.pool.close()
                await self._store.close()

    async def end(self, *, when_idle: bool, hives: list[str] | None = None) -> CascadeReceipt:
        """End the queen and everything of hers; *when_idle* lets running tasks take as long as they need.

        *hives* are the machines whose hives end with her, None for all. Who asks for more than the one before wins.
        """
        begun = self.drain.draining.is_set()
        if hives is None:
            self._cascade.end_all_hives()
        elif not begun:
            self._cascade.end_hives(hives)
        if not when_idle:
            self._cascade.limit()
        elif not begun:
            self._cascade.wait_for_tasks()
        return await self.drain.finish()

    async def nodes(self) -> list[NodeInfo]:
        """List the node registry."""
        return await self._store.list()

    async def add_node(self, spec: NodeSpec) -> NodeInfo:
        """Register a node and open a channel to its hive. Raises RbeeError NODE_EXISTS."""
        if spec.node_name == LOCALHOST_NODE and self.local is not None:
            raise RbeeError(
                ErrorCode.NODE_EXISTS,
                f"{LOCALHOST_NODE} is this queen's own machine and is always there.",
                hint="Choose another name, or run the queen with --local-hive false.",
            )
        info = await self._store.add(spec)
        if spec.hive_key:
            await asyncio.to_thread(self._keys.write, spec.node_name, spec.hive_key)
        await self._dial(info)
        return info

    async def remove_node(self, node: str) -> None:
        """Forget a node, its key and its channel; its hive goes on. Raises RbeeError NODE_NOT_FOUND."""
        await self._store.remove(node)
        await asyncio.to_thread(self._keys.remove, node)
        await self.channels.forget(node)

    async def _dial(self, node: NodeInfo) -> None:
        key = await asyncio.to_thread(self._keys.read, node.node_name)
        if key:
            self._on_key(key)
        host = f"[{node.ssh_host}]" if ":" in node.ssh_host else node.ssh_host
        await self.channels.open(node.node_name, f"http://{host}:{node.hive_port}", key)

    async def _local_begun(self) -> None:
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
        for link in hello.workers:
            self._on_key(link.api_key)
        await self._noted(self._store.reached(node, hello.detection, now=self._now()))

    async def _lost(self, node: str, reason: str) -> None:
        await self._noted(self._store.lost(node, reason))

    async def _noted(self, change: Awaitable[None]) -> None:
        """Write to the registry what is only for people to see: a database that fails then is logged, not fatal."""
        try:
            await change
        except RbeeError as error:
            log.error("node registry not updated", extra={"fields": {"reason": error.message}})
