"""Assemble the queen from its parts, start it and stop it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from rbee import __version__
from rbee.client.retry import CONNECT_TIMEOUT_S
from rbee.config.paths import Paths
from rbee.contracts.control import Hello
from rbee.contracts.hives import CascadeReceipt, NodeInfo, NodeSpec
from rbee.contracts.ids import LOCALHOST_NODE, new_id
from rbee.contracts.queen import QueenStatus
from rbee.contracts.workers import WorkerInfo
from rbee.daemonkit.background import BackgroundTasks
from rbee.daemonkit.drain import Drain
from rbee.errors import RbeeError
from rbee.net import host_port
from rbee.queen.client_ids import ClientIds
from rbee.queen.database import Database
from rbee.queen.fleet.control_channels import ControlChannels
from rbee.queen.fleet.node_specs import check_names
from rbee.queen.fleet.node_store import HiveKeys, NodeStore
from rbee.queen.fleet.readiness import Readiness
from rbee.queen.fleet.state import FleetState
from rbee.queen.fleet.worker_start import WorkerStarter
from rbee.queen.keys.store import ClientKeys
from rbee.queen.local_hive.supervisor import LocalHive
from rbee.queen.relay.connection import UpstreamLost
from rbee.queen.relay.pool import UpstreamPool
from rbee.queen.serving.loop import ServingLoop
from rbee.queen.serving.sources import DeclarationSources
from rbee.queen.settings import QueenSettings
from rbee.queen.shutdown import FleetShutdown
from rbee.queen.tasks.registry import TaskRegistry
from rbee.queen.tasks.scheduler import Scheduler
from rbee.queen.tasks.task import QueenServices
from rbee.queen.usage.store import UsageStore

if TYPE_CHECKING:
    from rbee.contracts.served import ServedModel
    from rbee.queen.console.access import ConsoleAccess
    from rbee.queen.events.feed import EventFeed

log = logging.getLogger(__name__)


class Queen:
    """The parts of the queen, for its routes.

    Args:
        database: open, if there is one.
        client_keys: loaded; and so is *usage*.
        served: loaded.
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
        usage: UsageStore,
        served: DeclarationSources,
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
        self._key = key
        self.client_keys = client_keys
        self.usage = usage
        self.served = served
        self.declarations = served.declarations
        self._database = database
        self._store = NodeStore(database)
        self._keys = HiveKeys(paths)
        self._on_key = on_key
        self._now = now
        background = self.background = BackgroundTasks()
        # The same after a restart; not for another queen with the same key, such as an operator's own.
        own_id = self.client_ids.id(f"queen\n{socket.gethostname()}\n{paths.home}")
        self._own_id = own_id
        self.fleet = FleetState(now, queen=own_id)
        self.channels = ControlChannels(
            self.fleet, background, queen_id=new_id("queen"), on_reached=self._reached, on_lost=self._lost
        )
        self.fleet.find_declared = self._find_declared
        self.fleet.on_energy = usage.energy_read
        self.fleet.occupancy.is_pinned = self._is_pinned
        self.starter = WorkerStarter(
            self.fleet, self.channels, background, loading_timeout_s=settings.loading_timeout_s, queen=own_id
        )
        self.serving = ServingLoop(
            self.fleet,
            self.declarations,
            self.starter,
            self.channels,
            background,
            queen=own_id,
            keeps_replicas=not ephemeral,
            local=local,
            is_stopping=lambda: self.drain.draining.is_set(),
            clock=time.monotonic,
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
                usage,
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
            self.background.start(self.client_keys.keep_writing(), name="last uses")
            self.background.start(self.usage.keep_writing(), name="usage")
            await self._dial(await self._store.list())
            if self.local is not None:
                self.fleet.add_node(LOCALHOST_NODE, "")
                self.local.attach(self._local_up, self._local_down)
                self.background.start(self._start_local(), name="local hive")
            self.background.start(self.serving.run(), name="served models")
            try:
                yield
            finally:
                await self.channels.close_all()
                self.pool.close()
                await self.client_keys.write(last=True)
                await self.usage.write()
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

    def status(self) -> QueenStatus:
        """Return how this queen is."""
        registry = self.fleet.registry
        return QueenStatus(
            version=__version__,
            pid=os.getpid(),
            started_unix=self.started_unix,
            ephemeral=self.ephemeral,
            hives_connected=len(registry.connected),
            workers=len(registry.index),
            tasks_running=len(self.tasks),
            tasks_waiting=self.tasks.waiting,
            draining=self.drain.draining.is_set(),
        )

    @cached_property
    def events(self) -> EventFeed:
        """Return what tells readers of the fleet."""
        from rbee.queen.events.feed import EventFeed  # no start waits for it

        return EventFeed(
            self.fleet,
            self.tasks,
            self.serving,
            self.declarations,
            self.starter,
            self.background,
            status=self.status,
        )

    @cached_property
    def console(self) -> ConsoleAccess:
        """Return the sessions of browsers."""
        from rbee.queen.console.access import ConsoleAccess  # no start waits for it

        return ConsoleAccess(self.client_keys, self._key, self._now)

    def reload(self) -> None:
        """Read the declared models again from their files."""
        self.background.start(self.served.reload(), name="reload")

    async def nodes(self, after: str = "", limit: int | None = None) -> list[NodeInfo]:
        """List the node registry by name, the nodes after a name and at most so many."""
        return await self._store.list(after, limit)

    async def add_nodes(self, specs: Sequence[NodeSpec]) -> list[NodeInfo]:
        """Register nodes, all or none, and open channels to their hives. Raises RbeeError NODE_EXISTS."""
        if self.local is not None:
            check_names(specs)
        nodes = await self._store.add(specs)
        keys = {spec.node_name: spec.hive_key for spec in specs if spec.hive_key}
        await asyncio.to_thread(self._keys.write, keys)
        await self._dial(nodes)
        return nodes

    async def remove_node(self, node: str) -> None:
        """Remove a node, its key and its channel; its hive keeps running. Raises RbeeError NODE_NOT_FOUND."""
        await self._store.remove(node)
        await self._end_declared(node)
        await asyncio.to_thread(self._keys.remove, node)
        await self.channels.forget(node)

    def _find_declared(self, name: str) -> ServedModel | None:
        declared = self.declarations.find(name)
        return None if declared is None else declared.model

    def _is_pinned(self, worker: WorkerInfo) -> bool:
        """Return whether a worker stays: by its declaration as it is now, of another queen's as it was started."""
        if worker.served is None or worker.declared_by != self._own_id:
            return worker.keep == "always"
        declared = self._find_declared(worker.served)
        return declared is not None and declared.pinned

    async def _end_declared(self, node: str) -> None:
        """End what this queen keeps on a node that it is to forget: nobody else would."""
        hive = self.fleet.registry.hive(node)
        links = [] if hive is None else hive.workers.values()
        ids = [link.worker.worker_id for link in links if link.worker.declared_by == self._own_id]
        stops = [self.channels.client(node).stop(worker_id) for worker_id in ids]
        for failed in await asyncio.gather(*stops, return_exceptions=True):
            if isinstance(failed, RbeeError):
                log.warning("worker not stopped", extra={"fields": {"node": node, "reason": failed.message}})

    async def _dial(self, nodes: Sequence[NodeInfo]) -> None:
        keys = await asyncio.to_thread(self._keys.read, [node.node_name for node in nodes])
        for node in nodes:
            key = keys.get(node.node_name)
            if key:
                self._on_key(key)
            await self.channels.open(node.node_name, f"http://{host_port(node.ssh_host, node.hive_port)}", key)
            await asyncio.sleep(0)  # of a thousand nodes none holds up the requests meanwhile

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
        self.usage.hive_lost(node)
        await self._log_failure(self._store.record_lost(node, reason))

    async def _log_failure(self, change: Awaitable[None]) -> None:
        """Write to the node registry what is only shown to people: a database that fails then is logged, not fatal."""
        try:
            await change
        except RbeeError as error:
            log.error("node registry not updated", extra={"fields": {"reason": error.message}})
