"""Start workers: fetch the model, spawn the process, and follow the load to its end, once for all who wait.

Fifty requests from cold are one download and one load. A client that leaves ends neither; when the last one has left,
its hive gives the download up, and keeps what it has for the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rbee import __version__
from rbee.contracts.control import WorkerChanged
from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import CatalogEntry, DownloadProgress, LoadingProgress
from rbee.contracts.references import short_reference, shown_reference
from rbee.contracts.version import is_compatible
from rbee.contracts.workers import SpawnRequest, WorkerAccess
from rbee.daemonkit.background import BackgroundTasks
from rbee.errors import RbeeError
from rbee.queen.fleet.control_channels import ControlChannels
from rbee.queen.fleet.eviction import evict
from rbee.queen.fleet.loading import wait_until_serving
from rbee.queen.fleet.model_fetches import ModelFetches
from rbee.queen.fleet.state import FleetState
from rbee.queen.hive import Place
from rbee.queen.progress import ProgressFeed, SharedJob, retry_announcer
from rbee.queen.scheduling.placement import AwaitWorker, SpawnWorker, UseWorker
from rbee.queen.scheduling.request import PlacementRequest
from rbee.queen.scheduling.room import Site

if TYPE_CHECKING:
    from rbee.contracts.served import ServedModel

log = logging.getLogger(__name__)
# The longest pause between two attempts of a channel, and an attempt.
CHANNEL_TIMEOUT_S = 10.0
POLL_S = 0.2
_NO_FAILURES: Final = (ErrorCode.CANCELED, ErrorCode.ALL_SLOTS_BUSY)  # nobody waited, or something else was asked for
OUT_OF_MEMORY: Final = (ErrorCode.RAM_EXHAUSTED, ErrorCode.VRAM_EXHAUSTED)
_MB: Final = 1024 * 1024


class _Key(NamedTuple):
    """What a start is for, and where."""

    name: str
    revision: str | None
    node: str
    backend: Backend
    device: int | None


class _Failure(NamedTuple):
    """Why the last start of a declared model failed, and as which it was declared."""

    revision: str
    reason: str


class WorkerStarter:
    """All starts under way, one for each model and place.

    Args:
        loading_timeout_s: how long a worker may take from its spawn until it serves.
        queen: the id of this queen, for the workers of what it has declared.
    """

    def __init__(
        self,
        fleet: FleetState,
        channels: ControlChannels,
        background: BackgroundTasks,
        *,
        loading_timeout_s: float,
        queen: str,
    ) -> None:
        self._fleet = fleet
        self._channels = channels
        self._background = background
        self._loading_timeout_s = loading_timeout_s
        self._queen = queen
        self._models = ModelFetches(fleet, channels, background)
        self._spawning: dict[_Key, SharedJob[WorkerAccess]] = {}
        self._placing: Counter[Place] = Counter()
        self._failures: dict[str, _Failure] = {}
        self._loading: dict[str, SharedJob[WorkerAccess]] = {}
        # How far the loads are that somebody follows, by worker.
        self.loads: dict[str, LoadingProgress] = {}
        # The workers that this queen started: the others were there before.
        self.spawned: set[str] = set()

    def start_for(self, placement: PlacementRequest, site: SpawnWorker) -> SharedJob[WorkerAccess]:
        """Start a worker for a request at *site*, or join a start of the model that is under way where it may run."""
        placement = self._fleet.as_declared(placement) or placement
        for key, job in self._spawning.items():
            same = (key.name, key.revision) == (placement.name, placement.revision)
            if same and _accepts(placement, site, key):
                return job
        key = _Key(placement.name, placement.revision, site.node, site.backend, site.device)
        return self._start(key, lambda feed: self._find_or_spawn(feed, placement, site))

    def start_replica(self, model: ServedModel, site: Site) -> SharedJob[WorkerAccess]:
        """Start one more worker of a declared model at *site*."""
        placement = PlacementRequest(model.model, served=model)
        evict = tuple(worker.worker_id for worker in site.room.evict)
        spawn = SpawnWorker(site.node, site.backend, site.device, site.model_present, evict)

        async def work(feed: ProgressFeed) -> WorkerAccess:
            await self._preflight(feed, site.node)
            entry = await self._models.ensure(feed, site.node, model.model)
            return await self._make_room_and_spawn(feed, placement, spawn, entry, join=False)

        return self._start(_Key(model.name, model.revision, site.node, site.backend, site.device), work)

    def starting(self, name: str) -> bool:
        """Return whether a worker for a model is being started, or its model fetched for one."""
        return any(key.name == name for key in self._spawning)

    def failure(self, model: ServedModel) -> str:
        """Return why the last start of a declared model failed, "" if it did not."""
        failure = self._failures.get(model.name)
        return failure.reason if failure is not None and failure.revision == model.revision else ""

    def downloads(self) -> Iterator[tuple[str, str, DownloadProgress | None]]:
        """Yield the nodes that get a model now, with its reference and how far it is, None before that is known."""
        return self._models.under_way()

    def starts(self, revisions: Mapping[str, str]) -> list[tuple[Place, str]]:
        """Return the devices on which a worker is being started, or its model fetched, with the names of the models.

        Args:
            revisions: those of the declared models, by name: what is of another one does not count.
        """
        current = [key for key in self._spawning if revisions.get(key.name, key.revision) == key.revision]
        places = [(self._fleet.place_of(key.node, key.backend, key.device), key.name) for key in current]
        return [(place, name) for place, name in places if place is not None]

    def placing(self) -> frozenset[Place]:
        """Return the devices on which room is being made, or a process started, at this moment."""
        return frozenset(self._placing)

    def _start(self, key: _Key, work: Callable[[ProgressFeed], Awaitable[WorkerAccess]]) -> SharedJob[WorkerAccess]:
        if key not in self._spawning:
            name = f"start of {shown_reference(key.name)} on {key.node}"
            self._spawning[key] = SharedJob.start(
                self._background,
                lambda feed: self._remember_failure(key, work(feed)),
                name=name,
                on_end=lambda: self._spawning.pop(key),
            )
        return self._spawning[key]

    async def _remember_failure(self, key: _Key, start: Awaitable[WorkerAccess]) -> WorkerAccess:
        try:
            link = await start
        except RbeeError as error:
            if key.revision is not None and error.code not in _NO_FAILURES:
                self._failures[key.name] = _Failure(key.revision, f"{key.node}: {error.message}")
            raise
        self._failures.pop(key.name, None)
        return link

    def wait_for_loading(self, wait: AwaitWorker) -> SharedJob[WorkerAccess]:
        """Wait for a worker that is loading, whoever spawned it."""
        worker_id = wait.link.worker.worker_id
        if worker_id not in self._loading:
            self._loading[worker_id] = SharedJob.start(
                self._background,
                lambda feed: self._wait_until_loaded(feed, wait.node, wait.link),
                name=f"wait for {worker_id}",
                on_end=lambda: self._loading.pop(worker_id),
            )
        return self._loading[worker_id]

    def start_requested(self, node: str, request: SpawnRequest) -> SharedJob[WorkerAccess]:
        """Start a worker because exactly that was requested: another one, even where one exists."""

        async def work(feed: ProgressFeed) -> WorkerAccess:
            await self._preflight(feed, node)
            entry = await self._models.ensure(feed, node, request.model)
            update = {"model": entry.reference, "in_quarantine_too": True}
            self._fleet.client_blocks.lift({request.model, entry.reference})
            return await self._spawn(feed, node, request.model_copy(update=update))

        return SharedJob.start(self._background, work, name=f"spawn on {node}")

    def ensure_model(self, node: str, model: str) -> SharedJob[CatalogEntry]:
        """Have a model on a node; a hive makes one download of two requests for the same model."""
        return SharedJob.start(
            self._background,
            lambda feed: self._models.ensure(feed, node, model),
            name=f"download of {shown_reference(model)} to {node}",
        )

    async def _find_or_spawn(self, feed: ProgressFeed, placement: PlacementRequest, site: SpawnWorker) -> WorkerAccess:
        await self._preflight(feed, site.node)
        entry = await self._models.ensure(feed, site.node, placement.model)
        # The hive has just told the canonical name of the model: it may be running under that one.
        here = PlacementRequest(placement.model, site.node, site.backend, site.device, served=placement.served)
        match self._fleet.place(here):
            case UseWorker(link=link):
                return link
            case AwaitWorker(node=node, link=link):
                return await self._wait_until_loaded(feed, node, link)
        return await self._make_room_and_spawn(feed, placement, site, entry, join=True)

    async def _make_room_and_spawn(
        self, feed: ProgressFeed, placement: PlacementRequest, site: SpawnWorker, entry: CatalogEntry, *, join: bool
    ) -> WorkerAccess:
        served = placement.served
        options: dict[str, Any] = {}
        if served is not None:
            options = {**served.options, "served": served.name, "revision": served.revision}
            options |= {"declared_by": self._queen, "keep": "always" if served.replicas else served.keep}
        request = SpawnRequest(model=entry.reference, backend=site.backend, device=site.device, join=join, **options)
        current = self._fleet.as_declared(placement)
        if current is None or current.revision != placement.revision:
            # Whoever waits for it looks again, by the declaration as it is now.
            raise RbeeError(ErrorCode.ALL_SLOTS_BUSY, f"{placement.name} was declared otherwise meanwhile.")
        place = self._fleet.place_of(site.node, site.backend, site.device)
        try:
            with contextlib.ExitStack() as placing:
                if place is not None:
                    placing.enter_context(self._placed_at(place))
                if site.evict:
                    placing.enter_context(self._fleet.making_room(site, placement.name))
                    await evict(self._fleet, self._channels, feed, site, placement.name)
                link = await self._launch(feed, site.node, request)
            return await self._wait_until_loaded(feed, site.node, link)
        except RbeeError as error:
            required_mb = error.details.get("required_mb")
            if error.code in OUT_OF_MEMORY and isinstance(required_mb, int):
                need = required_mb * _MB
                self._fleet.occupancy.learn_need(placement.name, placement.revision, site.backend, need)
            raise

    @contextlib.contextmanager
    def _placed_at(self, place: Place) -> Iterator[None]:
        self._placing[place] += 1
        try:
            yield
        finally:
            self._placing[place] -= 1
            if not self._placing[place]:
                del self._placing[place]

    async def _preflight(self, feed: ProgressFeed, node: str) -> None:
        """Check that the hive is there and compatible; one whose channel is closed is asked, attempt by attempt."""
        if not self._fleet.connected(node):
            await self._channels.client(node).health(retry_announcer(feed, node))
        await self._wait_for_channel(node)
        hive = self._fleet.registry.hive(node)
        version = (hive.version if hive is not None else None) or "unknown"
        if not is_compatible(__version__, version):
            raise RbeeError(
                ErrorCode.VERSION_MISMATCH,
                f"The hive on {node} is version {version}, the queen is {__version__}.",
                details={"hive_version": version, "queen_version": __version__},
                hint=f"Upgrade the hive: rbee-keeper hive upgrade --node {node}",
            )
        feed.narrate("rbee-hive", "preflight", f"hive {node}: preflight: alive, version {version}", "🩺")

    async def _wait_for_channel(self, node: str) -> None:
        """Wait for the channel to a hive that answers: after a network failure it comes back a little later.

        Raises RbeeError CONNECTION_TIMEOUT.
        """
        try:
            async with asyncio.timeout(CHANNEL_TIMEOUT_S):
                await self._fleet.wait_for(lambda: self._fleet.connected(node) or None)
        except TimeoutError as error:
            hive = self._fleet.registry.hive(node)
            because = f": {hive.last_error}" if hive is not None and hive.last_error else ""
            raise RbeeError(
                ErrorCode.CONNECTION_TIMEOUT,
                f"The hive on {node} answers, but its channel did not open within {CHANNEL_TIMEOUT_S:g} s{because}.",
                hint=f"See its log: rbee-keeper logs --node {node}",
            ) from error

    async def _spawn(self, feed: ProgressFeed, node: str, request: SpawnRequest) -> WorkerAccess:
        return await self._wait_until_loaded(feed, node, await self._launch(feed, node, request))

    async def _launch(self, feed: ProgressFeed, node: str, request: SpawnRequest) -> WorkerAccess:
        """Have a hive start a worker's process; its model is not loaded yet."""
        link = await self._channels.client(node).spawn(request)
        # The channel reports it too, perhaps a moment later; an exit that it has reported already is not undone.
        self._fleet.apply(node, WorkerChanged(link=link))
        self.spawned.difference_update([one for one in self.spawned if self._fleet.registry.worker(one) is None])
        self.spawned.add(link.worker.worker_id)
        link = self._fleet.registry.worker(link.worker.worker_id) or link
        worker = link.worker
        where = f"{worker.backend.value}:{worker.device} ({worker.url})"
        human = f"hive {node}: started worker {worker.worker_id} on {where}"
        feed.narrate("rbee-hive", "spawn", human, "🐝")
        return link

    async def _wait_until_loaded(self, feed: ProgressFeed, node: str, link: WorkerAccess) -> WorkerAccess:
        worker = link.worker

        def tell(progress: LoadingProgress) -> None:
            self.loads[worker.worker_id] = progress
            feed.loading(progress)

        human = f"worker {worker.worker_id} is loading {short_reference(worker.model_ref)}"
        feed.narrate("llm-worker-rbee", "load", human, "⏳")
        try:
            ready = await wait_until_serving(self._fleet, node, link, tell, timeout_s=self._loading_timeout_s)
        except RbeeError as error:
            if error.code is ErrorCode.LOADING_TIMEOUT:
                self._background.start(self._stop(node, worker.worker_id), name=f"stop of {worker.worker_id}")
            raise
        finally:
            self.loads.pop(worker.worker_id, None)
        remark = f" ({ready.worker.detail})" if ready.worker.detail else ""
        feed.narrate("llm-worker-rbee", "ready", f"worker {worker.worker_id} is ready{remark}", "✅")
        return ready

    async def _stop(self, node: str, worker_id: str) -> None:
        """Stop a worker that is stuck, so that the next request gets a fresh one."""
        try:
            await self._channels.client(node).stop(worker_id)
        except RbeeError as error:
            log.warning("stuck worker not stopped", extra={"fields": {"worker_id": worker_id, "reason": error.message}})


def _accepts(placement: PlacementRequest, site: SpawnWorker, key: _Key) -> bool:
    """Return whether a request may use what is being started at *key*."""
    if placement.served is None:
        return (site.node, site.backend, site.device) == (key.node, key.backend, key.device)
    allowed = placement.allows_node(key.node) and placement.wanted_backend in (None, key.backend)
    return allowed and (key.device is None or placement.allows_device(key.device))
