"""Start workers: fetch the model, spawn the process, and follow the load to its end, once for all who wait.

Fifty requests from cold are one download and one load. A client that leaves ends neither; when the last one has left,
its hive gives the download up, and keeps what it has for the next.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from rbee import __version__
from rbee.client.base import OnRetry
from rbee.client.worker import WorkerClient
from rbee.contracts.control import WorkerChanged, WorkerGone
from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import CatalogEntry, DownloadProgress, LoadingProgress
from rbee.contracts.references import shown_reference
from rbee.contracts.version import is_compatible
from rbee.contracts.workers import SpawnRequest, WorkerAccess, WorkerInfo
from rbee.daemonkit.background import BackgroundTasks
from rbee.errors import RbeeError
from rbee.queen.fleet.control_channels import ControlChannels
from rbee.queen.fleet.state import FleetState
from rbee.queen.progress import DownloadNarrator, ProgressFeed, SharedJob
from rbee.queen.scheduling.placement import AwaitWorker, PlacementRequest, SpawnWorker, UseWorker

log = logging.getLogger(__name__)
# The longest pause between two attempts of a channel, and an attempt.
CHANNEL_TIMEOUT_S = 10.0
POLL_S = 0.2
_Site = tuple[str, str, Backend, int | None]


class WorkerStarter:
    """All starts under way, one for each model and place.

    Args:
        loading_timeout_s: how long a worker may take from its spawn until it serves.
    """

    def __init__(
        self, fleet: FleetState, channels: ControlChannels, background: BackgroundTasks, *, loading_timeout_s: float
    ) -> None:
        self._fleet = fleet
        self._channels = channels
        self._background = background
        self._loading_timeout_s = loading_timeout_s
        self._spawning: dict[_Site, SharedJob[WorkerAccess]] = {}
        self._loading: dict[str, SharedJob[WorkerAccess]] = {}
        # The workers that this queen started: the others were there before.
        self.spawned: set[str] = set()

    def start_for(self, placement: PlacementRequest, site: SpawnWorker) -> SharedJob[WorkerAccess]:
        """Start a worker for a request at *site*, or join the start that is under way there."""
        key = (site.node, placement.model, site.backend, site.device)
        if key not in self._spawning:
            self._spawning[key] = SharedJob.start(
                self._background,
                lambda feed: self._find_or_spawn(feed, placement.model, site),
                name=f"start of {shown_reference(placement.model)} on {site.node}",
                on_end=lambda: self._spawning.pop(key),
            )
        return self._spawning[key]

    def starting(self, model: str) -> bool:
        """Return whether a worker for *model* is being started, or its model fetched for one."""
        return any(site[1] == model for site in self._spawning)

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
            entry = await self._ensure_model(feed, node, request.model)
            update = {"model": entry.reference, "in_quarantine_too": True}
            self._fleet.client_blocks.lift({request.model, entry.reference})
            return await self._spawn(feed, node, request.model_copy(update=update))

        return SharedJob.start(self._background, work, name=f"spawn on {node}")

    def ensure_model(self, node: str, model: str) -> SharedJob[CatalogEntry]:
        """Have a model on a node; a hive makes one download of two requests for the same model."""
        return SharedJob.start(
            self._background,
            lambda feed: self._ensure_model(feed, node, model),
            name=f"download of {shown_reference(model)} to {node}",
        )

    async def _find_or_spawn(self, feed: ProgressFeed, model: str, site: SpawnWorker) -> WorkerAccess:
        await self._preflight(feed, site.node)
        entry = await self._ensure_model(feed, site.node, model)
        # The hive has just told the canonical name of the model: it may be running under that one.
        match self._fleet.place(PlacementRequest(model, site.node, site.backend, site.device)):
            case UseWorker(link=link):
                return link
            case AwaitWorker(node=node, link=link):
                return await self._wait_until_loaded(feed, node, link)
        request = SpawnRequest(model=entry.reference, backend=site.backend, device=site.device, join=True)
        return await self._spawn(feed, site.node, request)

    async def _preflight(self, feed: ProgressFeed, node: str) -> None:
        """Check that the hive is there and compatible; one whose channel is closed is asked, attempt by attempt."""
        if not self._fleet.connected(node):
            await self._channels.client(node).health(_retry_announcer(feed, node))
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

    async def _ensure_model(self, feed: ProgressFeed, node: str, model: str) -> CatalogEntry:
        client = self._channels.client(node)
        progress = await client.download(model, _retry_announcer(feed, node))
        narrator = DownloadNarrator(feed, node, shown_reference(model))
        if progress.stage != "complete":
            progress = await self._follow_download(narrator, node, model) or progress
        elif progress.fetched:
            narrator.tell(progress)
        entry = progress.entry
        if entry is None:
            raise RbeeError(
                ErrorCode.INVALID_RESPONSE,
                f"The hive on {node} reports that it has {shown_reference(model)}, but sent no catalog entry for it.",
                details={"node": node, "model": shown_reference(model)},
            )
        self._fleet.learn_alias(model, entry.reference)
        verb = "downloaded and added to the catalog" if narrator.downloads else "found in the catalog"
        human = f"hive {node}: {short(entry.reference)} {verb} ({entry.size_bytes / 1e6:.0f} MB)"
        feed.narrate("rbee-hive", "catalog", human, "📚")
        return entry

    async def _follow_download(self, narrator: DownloadNarrator, node: str, model: str) -> DownloadProgress | None:
        """Publish the progress of a download, and return the last of it.

        Raises RbeeError: the hive's own, or CANCELED once nobody waits, upon which the hive will see that itself.
        """
        client = self._channels.client(node)
        feed = narrator.feed

        async def follow() -> DownloadProgress | None:
            progress = None
            async for progress in client.download_progress(model):
                narrator.tell(progress)
            return progress

        while True:
            following = asyncio.ensure_future(follow())
            unwanted = asyncio.ensure_future(feed.unwanted.wait())
            try:
                await asyncio.wait({following, unwanted}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ended = following.done()
                following.cancel()
                unwanted.cancel()
                await asyncio.gather(following, unwanted, return_exceptions=True)
            if ended:
                return following.result()
            if feed.unwanted.is_set():  # else somebody has come meanwhile
                raise RbeeError(ErrorCode.CANCELED, f"Nobody waits for the download of {model} to {node} any more.")
            await client.download(model)

    async def _spawn(self, feed: ProgressFeed, node: str, request: SpawnRequest) -> WorkerAccess:
        link = await self._channels.client(node).spawn(request)
        # The channel reports it too, perhaps a moment later; an exit that it has reported already is not undone.
        self._fleet.apply(node, WorkerChanged(link=link))
        self.spawned.add(link.worker.worker_id)
        link = self._fleet.registry.worker(link.worker.worker_id) or link
        worker = link.worker
        where = f"{worker.backend.value}:{worker.device} ({worker.url})"
        human = f"hive {node}: started worker {worker.worker_id} on {where}"
        feed.narrate("rbee-hive", "spawn", human, "🐝")
        return await self._wait_until_loaded(feed, node, link)

    async def _wait_until_loaded(self, feed: ProgressFeed, node: str, link: WorkerAccess) -> WorkerAccess:
        worker = link.worker
        human = f"worker {worker.worker_id} is loading {short(worker.model_ref)}"
        feed.narrate("llm-worker-rbee", "load", human, "⏳")
        try:
            ready = await _wait_until_serving(self._fleet, feed, node, link, timeout_s=self._loading_timeout_s)
        except RbeeError as error:
            if error.code is ErrorCode.LOADING_TIMEOUT:
                self._background.start(self._stop(node, worker.worker_id), name=f"stop of {worker.worker_id}")
            raise
        remark = f" ({ready.worker.detail})" if ready.worker.detail else ""
        feed.narrate("llm-worker-rbee", "ready", f"worker {worker.worker_id} is ready{remark}", "✅")
        return ready

    async def _stop(self, node: str, worker_id: str) -> None:
        """Stop a worker that is stuck, so that the next request gets a fresh one."""
        try:
            await self._channels.client(node).stop(worker_id)
        except RbeeError as error:
            log.warning("stuck worker not stopped", extra={"fields": {"worker_id": worker_id, "reason": error.message}})


def short(reference: str) -> str:
    """Return the part of a model reference that a person reads: the file's name, or what follows the provider."""
    shown = shown_reference(reference)
    return shown.rsplit("/", 1)[-1] or shown


def _retry_announcer(feed: ProgressFeed, node: str) -> OnRetry:
    """Return a callback that narrates each further attempt to reach a hive."""

    def announce(attempt: int, of: int, why: str) -> None:
        feed.narrate("queen-rbee", "retry", f"hive {node} does not answer ({why}); retry {attempt} of {of}", "🔁")

    return announce


@dataclass(slots=True)
class _LatestProgress:
    """The latest progress of a load, for the message of a timeout."""

    progress: LoadingProgress | None = None

    def __str__(self) -> str:
        if self.progress is None:
            return "it has reported no progress"
        if not self.progress.layers_total:
            return f"it is at '{self.progress.stage}'"
        return f"{self.progress.layers_loaded} of {self.progress.layers_total} layers are loaded"


async def _wait_until_serving(
    fleet: FleetState, feed: ProgressFeed, node: str, link: WorkerAccess, *, timeout_s: float
) -> WorkerAccess:
    """Wait until the worker accepts requests, with its progress in *feed*.

    Raises:
        RbeeError: LOADING_TIMEOUT after *timeout_s* seconds; the worker's own error, or WORKER_START_FAILED, where it
            ended; CONNECTION_TIMEOUT where its hive was lost.
    """
    worker = link.worker
    latest = _LatestProgress()
    following = asyncio.create_task(_follow_loading(link, feed, latest), name=f"loading of {worker.worker_id}")
    try:
        async with asyncio.timeout(timeout_s):
            return await fleet.wait_for(lambda: _serving(fleet, node, worker))
    except TimeoutError as error:
        log_path = _log_path(worker.worker_id)
        raise RbeeError(
            ErrorCode.LOADING_TIMEOUT,
            f"Worker {worker.worker_id} on {node} did not load {worker.model_ref} within {timeout_s:g} s: {latest}.",
            details={
                "worker_id": worker.worker_id,
                "node": node,
                "log": log_path,
                "progress": latest.progress.model_dump(exclude_none=True) if latest.progress else None,
            },
            hint=f"See its log ({log_path}): rbee-keeper logs --node {node}; "
            "for a slow disk raise loading_timeout_s of the queen.",
        ) from error
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def _serving(fleet: FleetState, node: str, worker: WorkerInfo) -> WorkerAccess | None:
    """Return the worker if it serves, None while it does not yet. Raises RbeeError if it never will."""
    gone = fleet.registry.gone(worker.worker_id)
    if gone is not None:
        raise _start_error(node, worker.worker_id, gone)
    hive = fleet.registry.hive(node)
    if hive is None or not hive.connected:
        because = f": {hive.last_error}" if hive is not None and hive.last_error else ""
        raise RbeeError(
            ErrorCode.CONNECTION_TIMEOUT, f"The hive on {node} was lost while its worker was loading{because}."
        )
    link = hive.workers.get(worker.worker_id)
    if link is None:
        raise RbeeError(
            ErrorCode.WORKER_START_FAILED, f"The hive on {node} does not list worker {worker.worker_id} any more."
        )
    return link if link.worker.state.serves else None


def _start_error(node: str, worker_id: str, gone: WorkerGone) -> RbeeError:
    """Describe why a worker ended before it was ready, with its own error where it reported one."""
    details = {"worker_id": worker_id, "node": node, "log": _log_path(worker_id), "log_tail": gone.log_tail}
    if gone.error is not None:
        own = gone.error
        return RbeeError(
            own.code, own.message, details={**own.details, **details}, hint=own.hint or None, param=own.param
        )
    return RbeeError(
        ErrorCode.WORKER_START_FAILED,
        f"Worker {worker_id} on {node} ended before it was ready: {gone.reason}.",
        details=details,
    )


def _log_path(worker_id: str) -> str:
    """Return the log of a worker, as a path on its node."""
    return f"$RBEE_HOME/logs/{worker_id}.log"


async def _follow_loading(link: WorkerAccess, feed: ProgressFeed, latest: _LatestProgress) -> None:
    """Publish the worker's progress; one that has not bound its port yet is asked again."""
    client = WorkerClient(link.worker.worker_id, link.worker.url, link.api_key)
    try:
        while True:
            try:
                async for progress in client.loading():
                    latest.progress = progress
                    feed.loading(progress)
            except RbeeError as error:
                if error.code is not ErrorCode.CONNECTION_TIMEOUT:
                    return
                await asyncio.sleep(POLL_S)
            else:
                return
    finally:
        await client.close()
