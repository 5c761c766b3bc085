"""The registry as something that can be waited on, with what else the queen knows of the fleet in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar

from rbee import __version__
from rbee.contracts.control import Hello, HiveMessage, WorkerGone
from rbee.contracts.workers import WorkerInfo
from rbee.queen.placement import Decision, Fleet, Wish, place
from rbee.queen.prefixes import Prefixes
from rbee.queen.registry import Registry

T = TypeVar("T")


class FleetWatch:
    """Hold the registry and wake whoever waits for a change of it. *now* gives seconds since the epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.registry = Registry()
        self._prefixes = Prefixes()
        self._now = now
        self._in_flight: Counter[str] = Counter()
        self._spellings: defaultdict[str, set[str]] = defaultdict(set)
        self._change = asyncio.Event()

    def add_node(self, node: str, url: str) -> None:
        """Know of a node."""
        self.registry.add_node(node, url)
        self._changed()

    def remove_node(self, node: str) -> None:
        """Forget a node."""
        self.registry.remove_node(node)
        self._changed()

    def apply(self, node: str, message: HiveMessage) -> None:
        """Take in what a hive said."""
        self.registry.apply(node, message, now=self._now())
        if isinstance(message, WorkerGone):
            self._prefixes.forget(message.worker_id)
        elif isinstance(message, Hello):  # perhaps after a silence in which others of its workers ended
            self._prefixes.keep_only({worker.worker_id for worker in self.registry.workers()})
        self._changed()

    def lost(self, node: str, reason: str) -> None:
        """Note that a hive cannot be heard."""
        self.registry.lost(node, reason)
        self._changed()

    async def until(self, look: Callable[[], T | None]) -> T:
        """Wait until *look* finds something; it is asked now and after every change."""
        while (found := look()) is None:
            await self._change.wait()
        return found

    def connected(self, node: str) -> bool:
        """Tell whether the channel to *node*'s hive is up."""
        hive = self.registry.hive(node)
        return hive is not None and hive.connected

    def place(self, wish: Wish) -> Decision:
        """Choose where *wish* runs, in the fleet as it is now."""
        wish = replace(wish, same_as=frozenset(self._spellings[wish.model]))
        return place(Fleet(tuple(self.registry.hives()), __version__, self._in_flight, self._prefixes), wish)

    def reads(self, worker: WorkerInfo, wish: Wish) -> None:
        """Note that a worker reads the prompt of *wish*, so that the next turn of the conversation goes there too."""
        self._prefixes.remember(worker.worker_id, wish.marks, slots=worker.slots_total)

    def learn_spelling(self, asked: str, canonical: str) -> None:
        """Remember that a hive reads *asked* as *canonical*, so that the next wish finds its worker."""
        if asked != canonical:
            self._spellings[asked].add(canonical)

    @contextlib.contextmanager
    def using(self, worker_id: str) -> Iterator[None]:
        """Count a request of ours on a worker while it runs."""
        self._in_flight[worker_id] += 1
        try:
            yield
        finally:
            self._in_flight[worker_id] -= 1
            if not self._in_flight[worker_id]:
                del self._in_flight[worker_id]
            self._changed()

    def _changed(self) -> None:
        """Wake all waiters once: they hold the old event, whoever waits next gets a new one."""
        self._change.set()
        self._change = asyncio.Event()
