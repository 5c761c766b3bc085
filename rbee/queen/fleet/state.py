"""Hold what the queen knows of the fleet in memory, and let others wait for changes of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from rbee import __version__
from rbee.contracts.control import Hello, HiveMessage, WorkerGone
from rbee.contracts.references import shown_reference
from rbee.contracts.workers import WorkerInfo
from rbee.queen.registry import Registry
from rbee.queen.scheduling.client_blocks import Block, ClientBlocks
from rbee.queen.scheduling.placement import Decision, Fleet, PlacementRequest, place
from rbee.queen.scheduling.prefix_index import PrefixIndex
from rbee.queen.scheduling.rejections import blocked

T = TypeVar("T")


class FleetState:
    """The registry, the requests in flight and the prompts that were read. *now* returns seconds since the epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.registry = Registry()
        self._prefix_index = PrefixIndex()
        self._now = now
        self._in_flight: Counter[str] = Counter()
        self._aliases: defaultdict[str, set[str]] = defaultdict(set)
        self._change = asyncio.Event()
        self.client_blocks = ClientBlocks()

    def add_node(self, node: str, url: str) -> None:
        """Add a node."""
        self.registry.add_node(node, url)
        self._notify()

    def remove_node(self, node: str) -> None:
        """Remove a node."""
        self.registry.remove_node(node)
        self._notify()

    def apply(self, node: str, message: HiveMessage) -> None:
        """Apply a hive's message."""
        if isinstance(message, WorkerGone):
            self._record_crash(message)
        self.registry.apply(node, message, now=self._now())
        if isinstance(message, WorkerGone):
            self._prefix_index.forget(message.worker_id)
        elif isinstance(message, Hello):  # perhaps after a silence in which others of its workers ended
            self._prefix_index.keep_only({worker.worker_id for worker in self.registry.workers()})
        self._notify()

    def lost(self, node: str, reason: str, *, ended: bool = False) -> None:
        """Record that a hive cannot be reached, or has *ended*."""
        self.registry.lost(node, reason, ended=ended)
        self._notify()

    async def wait_for(self, look: Callable[[], T | None]) -> T:
        """Wait until *look* returns something; it is called now and after every change."""
        while (found := look()) is None:
            await self._change.wait()
        return found

    def connected(self, node: str) -> bool:
        """Return whether the channel to *node*'s hive is up."""
        hive = self.registry.hive(node)
        return hive is not None and hive.connected

    def place(self, request: PlacementRequest) -> Decision:
        """Choose where *request* runs, in the fleet as it is now."""
        request = replace(request, aliases=self.spellings(request.model))
        block = self.client_blocks.find((request.model, *request.aliases), request.client, self._now())
        if block is not None:
            return blocked(block, self._now())
        return place(Fleet(tuple(self.registry.hives()), __version__, self._in_flight, self._prefix_index), request)

    def record_prompt(self, worker: WorkerInfo, request: PlacementRequest) -> None:
        """Record that a worker reads the prompt of *request*, so that the conversation goes on there."""
        self._prefix_index.remember(worker.worker_id, request.prefix_hashes, slots=worker.slots_total)

    def spellings(self, model: str) -> frozenset[str]:
        """Return *model* and what else hives call it."""
        return frozenset((model, shown_reference(model), *self._aliases.get(model, ())))

    def learn_alias(self, asked: str, canonical: str) -> None:
        """Record that a hive calls the model *asked* *canonical*, so that the next request finds its worker."""
        if asked != canonical:
            self._aliases[asked].add(canonical)

    @contextlib.contextmanager
    def track_in_flight(self, worker_id: str) -> Iterator[None]:
        """Count a request of ours on a worker while it runs."""
        self._in_flight[worker_id] += 1
        try:
            yield
        finally:
            self._in_flight[worker_id] -= 1
            if not self._in_flight[worker_id]:
                del self._in_flight[worker_id]
            self._notify()

    def blocks(self) -> list[Block]:
        """List which clients are kept from which models now."""
        return self.client_blocks.all(self._now())

    def forgive(self, worker: WorkerInfo, client: str) -> None:
        """Let the crashes of this worker's model so far not count against *client*."""
        self.client_blocks.forgive(worker.model_ref, client, self._now())

    def _record_crash(self, message: WorkerGone) -> None:
        link = self.registry.worker(message.worker_id)
        if link is not None and message.crashed:
            self.client_blocks.record_crash(link.worker.model_ref, message.clients, message.reason, self._now())

    def _notify(self) -> None:
        """Wake all waiters once: they hold the old event, whoever waits next gets a new one."""
        self._change.set()
        self._change = asyncio.Event()
