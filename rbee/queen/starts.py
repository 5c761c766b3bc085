"""Bring workers up: the model fetched, the process spawned, the load followed to its end, once for all who wait.

Fifty requests from cold are one download and one load; a client that leaves ends neither.
"""

from __future__ import annotations

import asyncio
import logging

from rbee import __version__
from rbee.client.base import OnRetry
from rbee.contracts.control import WorkerChanged
from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import CatalogEntry
from rbee.contracts.workers import SpawnRequest, WorkerAccess
from rbee.daemonkit.background import BackgroundTasks
from rbee.errors import RbeeError
from rbee.queen.channels import Channels
from rbee.queen.fleet_watch import FleetWatch
from rbee.queen.loading import until_it_serves
from rbee.queen.placement import AwaitWorker, SpawnWorker, UseWorker, Wish, compatible
from rbee.queen.story import Story
from rbee.queen.undertaking import Undertaking

log = logging.getLogger(__name__)
# The longest pause between two attempts of a channel, and an attempt.
_CHANNEL_WITHIN_S = 10.0
_Place = tuple[str, str, Backend, int | None]


class Starts:
    """All starts under way, one for each model and place.

    Args:
        loading_timeout_s: how long a worker may take from its spawn until it serves.
    """

    def __init__(
        self, fleet: FleetWatch, channels: Channels, background: BackgroundTasks, *, loading_timeout_s: float
    ) -> None:
        self._fleet = fleet
        self._channels = channels
        self._background = background
        self._loading_timeout_s = loading_timeout_s
        self._spawning: dict[_Place, Undertaking[WorkerAccess]] = {}
        self._awaited: dict[str, Undertaking[WorkerAccess]] = {}
        # The workers that are this queen's own doing: the others were there before.
        self.spawned: set[str] = set()

    def for_wish(self, wish: Wish, place: SpawnWorker) -> Undertaking[WorkerAccess]:
        """Start a worker for *wish* at *place*, or join the start that is under way there."""
        key = (place.node, wish.model, place.backend, place.device)
        if key not in self._spawning:
            self._spawning[key] = Undertaking.begin(
                self._background,
                lambda story: self._found_or_spawned(story, wish, place),
                name=f"start of {wish.model} on {place.node}",
                after=lambda: self._spawning.pop(key),
            )
        return self._spawning[key]

    def joined(self, wait: AwaitWorker) -> Undertaking[WorkerAccess]:
        """Wait for a worker that is loading, whoever spawned it."""
        worker_id = wait.link.worker.worker_id
        if worker_id not in self._awaited:
            self._awaited[worker_id] = Undertaking.begin(
                self._background,
                lambda story: self._loaded(story, wait.node, wait.link),
                name=f"wait for {worker_id}",
                after=lambda: self._awaited.pop(worker_id),
            )
        return self._awaited[worker_id]

    def explicit(self, node: str, request: SpawnRequest) -> Undertaking[WorkerAccess]:
        """Start a worker because somebody asked for exactly that: another one, even where one exists."""

        async def work(story: Story) -> WorkerAccess:
            await self._preflight(story, node)
            entry = await self._fetched(story, node, request.model)
            asked = {"model": entry.reference, "in_quarantine_too": True}
            return await self._spawned(story, node, request.model_copy(update=asked))

        return Undertaking.begin(self._background, work, name=f"spawn on {node}", after=lambda: None)

    def fetched(self, node: str, model: str) -> Undertaking[CatalogEntry]:
        """Fetch a model to a node; a hive makes one download of two requests for the same model."""
        return Undertaking.begin(
            self._background,
            lambda story: self._fetched(story, node, model),
            name=f"fetch of {model} to {node}",
            after=lambda: None,
        )

    async def _found_or_spawned(self, story: Story, wish: Wish, place: SpawnWorker) -> WorkerAccess:
        await self._preflight(story, place.node)
        entry = await self._fetched(story, place.node, wish.model)
        # The hive has just said how the model is properly called: it may be running under that name.
        there = Wish(wish.model, place.node, place.backend, place.device)
        match self._fleet.place(there):
            case UseWorker(link=link):
                return link
            case AwaitWorker(node=node, link=link):
                return await self._loaded(story, node, link)
        request = SpawnRequest(model=entry.reference, backend=place.backend, device=place.device, join=True)
        return await self._spawned(story, place.node, request)

    async def _preflight(self, story: Story, node: str) -> None:
        """See that the hive is there and of our version; one whose channel is closed is asked, attempt by attempt."""
        if not self._fleet.connected(node):
            await self._channels.client(node).health(_telling(story, node))
        await self._reached(node)
        hive = self._fleet.registry.hive(node)
        version = (hive.version if hive is not None else None) or "unknown"
        if not compatible(__version__, version):
            raise RbeeError(
                ErrorCode.VERSION_MISMATCH,
                f"The hive on {node} is version {version}, the queen is {__version__}.",
                details={"hive_version": version, "queen_version": __version__},
                hint=f"Upgrade the hive: rbee-keeper hive upgrade --node {node}",
            )
        story.tell("rbee-hive", "preflight", f"hive {node}: preflight: alive, version {version}", "🩺")

    async def _reached(self, node: str) -> None:
        """Wait for the channel to a hive that answers: after a cut it comes back a little later than its machine.

        Raises RbeeError CONNECTION_TIMEOUT.
        """
        try:
            async with asyncio.timeout(_CHANNEL_WITHIN_S):
                await self._fleet.until(lambda: self._fleet.connected(node) or None)
        except TimeoutError as error:
            hive = self._fleet.registry.hive(node)
            because = f": {hive.last_error}" if hive is not None and hive.last_error else ""
            raise RbeeError(
                ErrorCode.CONNECTION_TIMEOUT,
                f"The hive on {node} answers, but its channel did not open within {_CHANNEL_WITHIN_S:g} s{because}.",
                hint=f"Look at its log: rbee-keeper logs --node {node}",
            ) from error

    async def _fetched(self, story: Story, node: str, model: str) -> CatalogEntry:
        """Have the model on *node*."""
        client = self._channels.client(node)
        progress = await client.download(model, _telling(story, node))
        known = progress.stage == "complete"
        if not known:
            story.tell("rbee-hive", "download", f"hive {node}: {model} is not in the catalogue, fetching it", "📥")
            async for progress in client.download_progress(model):
                if progress.stage == "retrying":
                    of = f" {progress.attempt} of {progress.attempts}" if progress.attempt else ""
                    story.tell(
                        "rbee-hive", "retry", f"hive {node}: download attempt{of}: {progress.reason or 'again'}", "🔁"
                    )
                else:
                    story.download(progress)
        entry = progress.entry
        if entry is None:
            raise RbeeError(
                ErrorCode.INVALID_RESPONSE,
                f"The hive on {node} says that it has {model}, but not what it is.",
                details={"node": node, "model": model},
            )
        self._fleet.learn_spelling(model, entry.reference)
        verb = "found in the catalogue" if known else "fetched and catalogued"
        story.tell(
            "rbee-hive",
            "catalogue",
            f"hive {node}: {short(entry.reference)} {verb} ({entry.size_bytes / 1e6:.0f} MB)",
            "📚",
        )
        return entry

    async def _spawned(self, story: Story, node: str, request: SpawnRequest) -> WorkerAccess:
        link = await self._channels.client(node).spawn(request)
        # The channel says so too, perhaps a moment later; a death that it told already is not undone by this.
        self._fleet.apply(node, WorkerChanged(link=link))
        self.spawned.add(link.worker.worker_id)
        link = self._fleet.registry.worker(link.worker.worker_id) or link
        worker = link.worker
        story.tell(
            "rbee-hive",
            "spawn",
            f"hive {node}: started worker {worker.worker_id} on {worker.backend.value}:{worker.device} ({worker.url})",
            "🐝",
        )
        return await self._loaded(story, node, link)

    async def _loaded(self, story: Story, node: str, link: WorkerAccess) -> WorkerAccess:
        worker = link.worker
        story.tell("llm-worker-rbee", "load", f"worker {worker.worker_id} is loading {short(worker.model_ref)}", "⏳")
        try:
            ready = await until_it_serves(self._fleet, story, node, link, timeout_s=self._loading_timeout_s)
        except RbeeError as error:
            if error.code is ErrorCode.LOADING_TIMEOUT:
                self._background.start(self._stopped(node, worker.worker_id), name=f"stop of {worker.worker_id}")
            raise
        story.tell("llm-worker-rbee", "ready", f"worker {worker.worker_id} is ready", "✅")
        return ready

    async def _stopped(self, node: str, worker_id: str) -> None:
        """Stop a worker that is stuck, so that the next request gets a fresh one."""
        try:
            await self._channels.client(node).stop(worker_id)
        except RbeeError as error:
            log.warning("stuck worker not stopped", extra={"fields": {"worker_id": worker_id, "reason": error.message}})


def _telling(story: Story, node: str) -> OnRetry:
    """Give what tells of each further attempt to reach a hive."""

    def again(attempt: int, of: int, why: str) -> None:
        story.tell("queen-rbee", "retry", f"hive {node} does not answer ({why}); retry {attempt} of {of}", "🔁")

    return again


def short(reference: str) -> str:
    """Give the part of a model reference that a person reads: the file's name, or what follows the provider."""
    return reference.rsplit("/", 1)[-1] or reference
