"""Have models on nodes: each is fetched from its origin by one node at a time, and copied from there by the others."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from rbee.contracts.control import ModelsChanged
from rbee.contracts.errors import ErrorCode
from rbee.contracts.models import MAX_NEIGHBOURS, CatalogEntry, DownloadProgress, Neighbour, model_files_path
from rbee.contracts.queen import Progress
from rbee.contracts.references import short_reference, shown_reference
from rbee.daemonkit.background import BackgroundTasks
from rbee.daemonkit.tickets import COPY_LIFE_S
from rbee.errors import RbeeError
from rbee.queen.fleet.control_channels import ControlChannels
from rbee.queen.fleet.model_sources import (
    COPIES_AT_ONCE,
    Fetch,
    Source,
    Wait,
    decide,
    reaches,
    shared_reference,
    sources,
)
from rbee.queen.fleet.state import FleetState
from rbee.queen.progress import DownloadNarrator, ProgressFeed, SharedJob, retry_announcer

log = logging.getLogger(__name__)
RENEW_S: Final = COPY_LIFE_S / 3
# A hive tells its models within a second of its start.
CATALOGS_TIMEOUT_S: Final = 3.0
LOST_CHECK_S: Final = 5.0
LOST_CHECKS: Final = 2
# The end of a copy makes one source free again, and another one out of whoever has the model now.
WOKEN: Final = COPIES_AT_ONCE + 1


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A node that gets a model now; `sources` are the nodes that it may copy it from."""

    job: SharedJob[CatalogEntry]
    sources: tuple[str, ...]


class ModelFetches:
    """All models that nodes get now, each once for all who wait."""

    def __init__(
        self,
        fleet: FleetState,
        channels: ControlChannels,
        background: BackgroundTasks,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._fleet = fleet
        self._channels = channels
        self._background = background
        self._now = now
        self._under_way: dict[str, dict[str, _UnderWay]] = {}
        self._waiting: defaultdict[str, deque[asyncio.Future[None]]] = defaultdict(deque)

    def under_way(self) -> Iterator[tuple[str, str, DownloadProgress | None]]:
        """Yield the nodes that get a model now, with its reference and how far it is, None before that is known."""
        for reference, ways in self._under_way.items():
            for node, way in ways.items():
                yield node, reference, way.job.download

    async def ensure(self, feed: ProgressFeed, node: str, model: str) -> CatalogEntry:
        """Have a model on *node* and return its row of the catalog there; the progress goes into *feed*.

        Raises RbeeError: the hive's own, or CANCELED once nobody waits, upon which the hive will see that itself.
        """
        reference = shared_reference(model)
        if reference is None:
            return await self._get(feed, node, model, ())
        await self._wait_for_catalogs(node, reference)
        failed: set[str] = set()
        told = ""
        while True:
            way = self._ways(reference).get(node)
            if way is None:
                decision = self._decide(node, reference, failed)
                if isinstance(decision, Wait):
                    if decision.because != told:
                        told = decision.because
                        feed.narrate("queen-rbee", "wait", f"hive {node}: {short_reference(reference)}: {told}", "⏳")
                    await self._wait_for_other(feed, reference, decision.node, node)
                    continue
                way = self._begin(node, model, reference, decision.sources, failed)
            try:
                return await self._follow_job(feed, way.job, node, model)
            except RbeeError as error:
                if not way.sources or error.code is not ErrorCode.DOWNLOAD_FAILED:
                    raise
                failed.update(way.sources, error.details.get("neighbours", ()))
                feed.narrate("queen-rbee", "retry", f"hive {node}: {error.message}", "🔁")

    def _decide(self, node: str, reference: str, failed: set[str]) -> Fetch | Wait:
        return decide(node, reference, self._fleet.registry.hives(), self._copying(reference), failed)

    def _ways(self, reference: str) -> Mapping[str, _UnderWay]:
        return self._under_way.get(reference, {})

    def _copying(self, reference: str) -> dict[str, str | None]:
        """Return the nodes that get a model now, each with the node that it copies from, None for its origin."""
        return {node: way.sources[0] if way.sources else None for node, way in self._ways(reference).items()}

    def _begin(
        self, node: str, model: str, reference: str, found: Sequence[Source], failed: Collection[str]
    ) -> _UnderWay:
        """Start to get a model to *node*; the others see that from now on."""

        def end() -> None:
            del ways[node]
            if not ways:
                del self._under_way[reference]
            self._wake(reference, WOKEN if ways else None)

        ways = self._under_way.setdefault(reference, {})
        # A hive whose key is not known gives nothing.
        names = tuple(each.node for each in self._neighbours(found))

        def offers() -> list[Neighbour]:
            """Return the sources as they are now: with fresh tickets, and those that have come meanwhile."""
            now = sources(node, reference, self._fleet.registry.hives(), self._copying(reference), failed)
            return self._neighbours(now[:MAX_NEIGHBOURS] or found)

        job = SharedJob.start(
            self._background,
            lambda feed: self._get(feed, node, model, self._neighbours(found), offers),
            name=f"{shown_reference(model)} to {node}",
            on_end=end,
        )
        ways[node] = _UnderWay(job, names)
        return ways[node]

    def _neighbours(self, found: Sequence[Source]) -> list[Neighbour]:
        """Return *found* as a hive is told it, each with a ticket for the one model."""
        named = []
        for source in found:
            entry = source.entry
            ticket = self._channels.copy_ticket(source.node, model_files_path(entry.id), now=self._now())
            if ticket is not None and entry.sha256 is not None:
                named.append(
                    Neighbour(
                        node=source.node,
                        url=source.url,
                        model_id=entry.id,
                        ticket=ticket,
                        sha256=entry.sha256,
                        size_bytes=entry.size_bytes,
                    )
                )
        return named

    async def _wait_for_catalogs(self, node: str, reference: str) -> None:
        """Wait until the hives that may have the model have told what they have, unless *node* has it."""

        def known() -> bool | None:
            registry = self._fleet.registry
            own = registry.hive(node)
            if own is None or any(entry.reference == reference for entry in own.models):
                return True
            others = [registry.hive(other) for other in registry.unlisted if other != node]
            return None if any(hive is not None and reaches(hive.url, own.url) for hive in others) else True

        if not known():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CATALOGS_TIMEOUT_S):
                    await self._fleet.wait_for(known)

    async def _wait_for_other(self, feed: ProgressFeed, reference: str, other: str, node: str) -> None:
        """Show how far *other* is until it is the turn of *node* to decide again."""
        job = self._ways(reference)[other].job
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[reference].append(turn)

        async def lose() -> None:
            """Return once *other* has been away for a while, so that nobody waits for a machine that is off."""
            away = 0
            while away < LOST_CHECKS:
                await asyncio.sleep(LOST_CHECK_S)
                away = 0 if self._fleet.connected(other) else away + 1

        async def show() -> None:
            async with aclosing(job.events()) as events:
                async for event in events:
                    if isinstance(event, Progress) and event.download and event.download.stage == "downloading":
                        feed.forward(event)

            # It has ended, and woken those whose turn it is.
            await turn

        await _first_of(show(), turn, lose(), feed.unwanted.wait())
        if feed.unwanted.is_set():
            raise _unwanted(reference, node)

    def _wake(self, reference: str, most: int | None) -> None:
        """Let *most* of those who wait decide again, the first ones, None for all."""
        waiting = self._waiting[reference]
        while waiting and most != 0:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                most = None if most is None else most - 1
        if not waiting:
            del self._waiting[reference]

    async def _follow_job(
        self, feed: ProgressFeed, job: SharedJob[CatalogEntry], node: str, model: str
    ) -> CatalogEntry:
        """Show what becomes of *job*, and return its result."""

        async def show() -> None:
            async with aclosing(job.events()) as events:
                async for event in events:
                    feed.forward(event)

        await _first_of(show(), feed.unwanted.wait())
        if not job.done:
            raise _unwanted(model, node)
        return await job.result()

    async def _get(
        self,
        feed: ProgressFeed,
        node: str,
        model: str,
        neighbours: Sequence[Neighbour],
        offers: Callable[[], Sequence[Neighbour]] = tuple,
    ) -> CatalogEntry:
        """Have *node*'s hive get a model."""
        client = self._channels.client(node)
        progress = await client.download(model, neighbours, retry_announcer(feed, node))
        narrator = DownloadNarrator(feed, node, shown_reference(model))
        if progress.stage != "complete":
            progress = await self._follow_download(narrator, node, model, offers if neighbours else None) or progress
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
        self._add_to_catalog(node, entry, fetched=progress.fetched)
        verb = "found in the catalog"
        if narrator.downloads:
            how = "downloaded" if narrator.source is None else f"copied from {narrator.source}"
            verb = f"{how} and added to the catalog"
        human = f"hive {node}: {short_reference(entry.reference)} {verb} ({entry.size_bytes / 1e6:.0f} MB)"
        feed.narrate("rbee-hive", "catalog", human, "📚")
        return entry

    def _add_to_catalog(self, node: str, entry: CatalogEntry, *, fetched: bool) -> None:
        """Note that a hive has a model, which its channel reports a moment later: others may want it by then."""
        hive = self._fleet.registry.hive(node)
        # A hive that has not listed its models is about to; after a download it is at once.
        if entry.sha256 is None or hive is None or entry in hive.models or not (hive.listed or fetched):
            return
        others = [known for known in hive.models if known.reference != entry.reference]
        self._fleet.apply(node, ModelsChanged(models=[*others, entry]))

    async def _follow_download(
        self,
        narrator: DownloadNarrator,
        node: str,
        model: str,
        offers: Callable[[], Sequence[Neighbour]] | None,
    ) -> DownloadProgress | None:
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

        async def renew() -> None:
            """Keep the tickets valid, for a copy that must be taken up again."""
            while offers is not None:
                await asyncio.sleep(RENEW_S)
                if fresh := offers():
                    with contextlib.suppress(RbeeError):  # the follower sees what is wrong
                        await client.download(model, fresh)
            await asyncio.Event().wait()

        while True:
            following = asyncio.ensure_future(follow())
            await _first_of(following, feed.unwanted.wait(), renew())
            if following.done() and not following.cancelled():
                return following.result()
            if feed.unwanted.is_set():  # else somebody has come meanwhile
                raise _unwanted(model, node)
            await client.download(model, () if offers is None else offers())


def _unwanted(model: str, node: str) -> RbeeError:
    return RbeeError(
        ErrorCode.CANCELED, f"Nobody waits for the download of {shown_reference(model)} to {node} any more."
    )


async def _first_of(*works: Coroutine[Any, Any, object] | asyncio.Future[Any]) -> None:
    """Wait for the first of *works* to end, and cancel the others. Raises what one of them failed with."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end
