"""Hold what the queen knows of the fleet in memory, and let others wait for changes of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from rbee.contracts.control import DevicesChanged, Heartbeat, Hello, HiveMessage, WorkerChanged, WorkerGone
from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.contracts.references import short_reference, shown_reference
from rbee.contracts.workers import WorkerAccess, WorkerInfo
from rbee.errors import RbeeError
from rbee.queen.hive import Place
from rbee.queen.registry import Changes, Registry
from rbee.queen.scheduling.client_blocks import Block, ClientBlocks
from rbee.queen.scheduling.occupancy import Occupancy
from rbee.queen.scheduling.placement import Decision, Fleet, SpawnWorker, place
from rbee.queen.scheduling.prefix_index import PrefixIndex
from rbee.queen.scheduling.rejections import blocked, undeclared
from rbee.queen.scheduling.request import PlacementRequest
from rbee.queen.scheduling.sites import devices_of

if TYPE_CHECKING:
    from rbee.contracts.devices import DeviceEnergy
    from rbee.contracts.served import ServedModel

T = TypeVar("T")


class FleetState:
    """The registry, the requests in flight, the prompts that were read and the use of memory.

    Args:
        now: returns seconds since the epoch.
        clock: returns seconds of a steady clock.
        queen: the id of this queen.
    """

    def __init__(
        self, now: Callable[[], float], clock: Callable[[], float] = time.monotonic, queen: str | None = None
    ) -> None:
        self._clock = clock
        self.registry = Registry(queen=queen)
        self._prefix_index = PrefixIndex()
        self._now = now
        self._aliases: defaultdict[str, set[str]] = defaultdict(set)
        self._change = asyncio.Event()
        self._collectors: list[set[str]] = []
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self.client_blocks = ClientBlocks()
        self.occupancy = Occupancy()
        self.find_declared: Callable[[str], ServedModel | None] | None = None
        """Returns the declared model of a name, as it is declared now."""
        self.on_energy: Callable[[str, Sequence[DeviceEnergy]], None] | None = None
        """Called with readings of what devices of a node take."""
        self.room_queue: dict[str, PlacementRequest] = {}
        """The requests that wait for memory, by the id of their tasks, the first to come first."""
        self._lost_at: dict[str, float] = {}
        self._retiring: frozenset[str] = frozenset()
        self._evicting: set[str] = set()

    def add_node(self, node: str, url: str) -> None:
        """Add a node."""
        self._follow(self.registry.add_node(node, url))

    def remove_node(self, node: str) -> None:
        """Remove a node."""
        self._lost_at.pop(node, None)
        self._follow(self.registry.remove_node(node))

    def apply(self, node: str, message: HiveMessage) -> None:
        """Apply a hive's message."""
        if isinstance(message, WorkerGone):
            self._record_crash(message)
        self._observe(node, message)
        self._follow(self.registry.apply(node, message, now=self._now()))
        for link in _links(message):
            known = self.registry.worker(link.worker.worker_id)
            if known is not None:  # else it has ended already
                self.occupancy.observe(known.worker, self._clock())

    def lost(self, node: str, reason: str, *, ended: bool = False) -> None:
        """Record that a hive cannot be reached, or has *ended*."""
        if self.connected(node):
            self._lost_at[node] = self._clock()
        self._follow(self.registry.lost(node, reason, ended=ended))

    def view(self) -> Fleet:
        """Return what decisions look at."""
        return Fleet(self.registry, self._prefix_index, self.occupancy, self._clock())

    def lost_within(self, seconds: float) -> frozenset[str]:
        """Return the nodes whose hive was lost so short a time ago."""
        now = self._clock()
        return frozenset(node for node, at in self._lost_at.items() if now - at < seconds)

    def place_of(self, node: str, backend: Backend, device: int | None) -> Place | None:
        """Return the device that is named, or the only one that a hive can choose; None where it has a choice."""
        hive = self.registry.hive(node)
        indices = [device] if device is not None or hive is None else [d.index for d in devices_of(hive, backend)]
        return (node, backend, indices[0]) if len(indices) == 1 and indices[0] is not None else None

    def retire(self, worker_ids: Collection[str]) -> None:
        """Send no more requests to these workers, and again to those that were retired before."""
        if self._retiring != worker_ids:
            self._retiring = frozenset(worker_ids)
            self._apply_retirement()

    @contextlib.contextmanager
    def making_room(self, site: SpawnWorker, name: str) -> Iterator[None]:
        """Let the workers that give way at *site* have no more requests, and nobody else make room there meanwhile.

        Raises RbeeError ALL_SLOTS_BUSY where somebody else does already.
        """
        assert site.device is not None
        place = (site.node, site.backend, site.device)
        if place in self.occupancy.starting:
            other = short_reference(self.occupancy.starting[place])
            raise RbeeError(ErrorCode.ALL_SLOTS_BUSY, f"Room for {other} is being made on {site.node}.")
        self.occupancy.starting[place] = name
        self._evicting.update(site.evict)
        self._apply_retirement()
        try:
            yield
        finally:
            del self.occupancy.starting[place]
            self._evicting.difference_update(site.evict)
            self._apply_retirement()

    @contextlib.contextmanager
    def awaiting_room(self, task_id: str, request: PlacementRequest) -> Iterator[None]:
        """Count a request that waits for memory."""
        self.room_queue[task_id] = request
        self._notify()
        try:
            yield
        finally:
            del self.room_queue[task_id]
            self._notify()

    def as_declared(self, request: PlacementRequest) -> PlacementRequest | None:
        """Return a request for a declared model as that is declared now; None where it is not any more."""
        if request.served is None or self.find_declared is None:
            return request
        current = self.find_declared(request.served.name)
        if current is None or current is request.served:
            return None if current is None else request
        return replace(request, model=current.model, served=current)

    def idle_for(self, worker: WorkerInfo) -> float:
        """Return for how long nobody has used a worker, in seconds."""
        return self.occupancy.idle_for(worker, self._clock())

    @contextlib.contextmanager
    def collecting(self) -> Iterator[set[str]]:
        """Collect the nodes, workers (by id) and models that change, for as long as the context lasts."""
        names: set[str] = set()
        self._collectors.append(names)
        try:
            yield names
        finally:
            self._collectors = [each for each in self._collectors if each is not names]

    def next_change(self) -> asyncio.Event:
        """Return an event that the next change sets."""
        return self._change

    def changed(self) -> None:
        """Wake whoever waits for a change: something other than the fleet has."""
        self._notify()

    def _apply_retirement(self) -> None:
        self.registry.index.retire(self._retiring | self._evicting)
        self._notify()

    async def wait_for(self, look: Callable[[], T | None], *about: str) -> T:
        """Wait until *look* returns something; it is called now and after changes.

        Args:
            about: the nodes, workers (by id) or models whose changes can make a difference; none for all changes.
        """
        if not about:
            while (found := look()) is None:
                await self._change.wait()
            return found
        changed = asyncio.Event()
        for key in about:
            self._waiting[key].add(changed)
        try:
            while (found := look()) is None:
                await changed.wait()
                changed.clear()
            return found
        finally:
            for key in about:
                self._waiting[key].discard(changed)
                if not self._waiting[key]:
                    del self._waiting[key]

    def connected(self, node: str) -> bool:
        """Return whether the channel to *node*'s hive is up."""
        hive = self.registry.hive(node)
        return hive is not None and hive.connected

    def place(self, request: PlacementRequest) -> Decision:
        """Choose where *request* runs, in the fleet, and by the declaration of its model, as they are now."""
        declared = self.as_declared(request)
        if declared is None:
            return undeclared(request.name)
        request = replace(declared, aliases=self.spellings(declared.model))
        block = self.client_blocks.find((request.model, *request.aliases), request.client, self._now())
        if block is not None:
            return blocked(block, self._now())
        return place(self.view(), request)

    def record_prompt(self, worker: WorkerInfo, request: PlacementRequest) -> None:
        """Record that a worker reads the prompt of *request*, so that the conversation goes on there."""
        worker_id = worker.worker_id
        if self.registry.worker(worker_id) is not None:  # else nobody would say that it is to be forgotten
            self._prefix_index.remember(worker_id, request.prefix_hashes, slots=worker.slots_total)
            self.registry.index.hold(worker_id, len(self._prefix_index.conversations().get(worker_id, ())))

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
        self.registry.index.begin(worker_id)
        try:
            yield
        finally:
            self.registry.index.end(worker_id)
            self.occupancy.used(worker_id, self._clock())
            filed = self.registry.index.find(worker_id)
            self._notify((worker_id,) if filed is None else (worker_id, *filed.names))

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

    def _observe(self, node: str, message: HiveMessage) -> None:
        """Remember what a hive tells of memory that is free again, before that is applied."""
        now = self._clock()
        match message:
            case WorkerGone(worker_id=worker_id):
                filed = self.registry.index.find(worker_id)
                if filed is not None and filed.node == node:
                    self.occupancy.freed(filed.link.worker, now)
            case Heartbeat(energy=readings) if readings and self.on_energy is not None:
                self.on_energy(node, readings)
            case Hello() | DevicesChanged():
                self.occupancy.devices_reported(node)
            case _:
                pass

    def _follow(self, changes: Changes) -> None:
        """Forget what workers that have ended had read, and wake who waits."""
        for worker_id in changes.ended:
            self._prefix_index.forget(worker_id)
            self.registry.index.hold(worker_id, 0)
        self.occupancy.forget(changes.ended)
        if changes.names:
            self._notify(changes.names)

    def _notify(self, about: Iterable[str] | None = None) -> None:
        """Wake who waits for changes of one of these, or for any change; None wakes all."""
        # They hold the old event, whoever waits next gets a new one.
        self._change.set()
        self._change = asyncio.Event()
        if about is not None and self._collectors:
            about = frozenset(about)
            for names in self._collectors:
                names.update(about)
        for key in self._waiting if about is None else about:
            for changed in self._waiting.get(key, ()):
                changed.set()


def _links(message: HiveMessage) -> Sequence[WorkerAccess]:
    """Return the workers that a message tells of."""
    match message:
        case WorkerChanged(link=link):
            return [link]
        case Hello(workers=links):
            return links
    return ()
