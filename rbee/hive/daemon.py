"""The hive as a whole: makes its parts, ties them together, starts and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable

from rbee import __version__
from rbee.config.paths import Paths
from rbee.contracts.control import Closing, DevicesChanged, Hello, ModelsChanged, QuarantineChanged
from rbee.contracts.hives import ShutdownReceipt
from rbee.contracts.ids import new_id
from rbee.contracts.models import CatalogEntry
from rbee.contracts.workers import SpawnRequest, WorkerAccess
from rbee.daemonkit import log_rotation
from rbee.daemonkit.background import BackgroundTasks
from rbee.daemonkit.drain import Drain
from rbee.errors import RbeeError
from rbee.hive import leftovers
from rbee.hive.control import ControlChannels
from rbee.hive.crew import Crew
from rbee.hive.inventory import Devices
from rbee.hive.models.catalog import Catalogue
from rbee.hive.models.downloads import Downloads
from rbee.hive.quarantines import Quarantines
from rbee.hive.returned import Returns
from rbee.hive.settings import HiveSettings
from rbee.hive.spawning import SpawnDesk
from rbee.hive.supervision import Supervision

log = logging.getLogger(__name__)
CATALOGUE_WITHIN_S = 0.5
CATALOGUE_AFTER_A_SPAWN_S = 0.6  # a small model has given its first token by then


class Hive:
    """One hive daemon. Make it anywhere; `running` needs an event loop.

    Args:
        port: the port that is bound already.
        on_key: told every key that is made, to keep it out of the log.
    """

    def __init__(self, settings: HiveSettings, paths: Paths, *, port: int, on_key: Callable[[str], None]) -> None:
        self.settings = settings
        self.paths = paths
        self.hive_id = new_id("hive")
        self.started_unix = time.time()
        self.background = BackgroundTasks()
        self.drain: Drain[ShutdownReceipt] = Drain(self._end, name="The hive")
        self._tidy = asyncio.Event()
        self._pruning = asyncio.Lock()
        self._models_seen: list[CatalogEntry] | None = None
        self._spawned = asyncio.Event()
        self.channels = ControlChannels(self._hello, self._heard_queen)
        self.devices = Devices(
            settings.detect_timeout_s, lambda found: self.channels.publish(DevicesChanged(detection=found))
        )
        self.catalogue = Catalogue(database_url(settings, paths), self._models_changed)
        self.downloads = Downloads(
            self.catalogue, paths.models, stall_s=settings.download_stall_s, chance=random.random
        )
        self.quarantines = Quarantines(
            settings.quarantine_s, lambda listed: self.channels.publish(QuarantineChanged(quarantined=listed))
        )
        self._desk = SpawnDesk(
            settings,
            paths,
            devices=self.devices,
            downloads=self.downloads,
            catalogue=self.catalogue,
            quarantines=self.quarantines,
            callback_url=f"http://{callback_host(settings.host)}:{port}/v1/workers/ready",
            tidy=self._tidy,
            on_key=on_key,
        )
        self.crew = Crew(
            Supervision(settings.policy(), heard_at=time.monotonic()),
            self.background,
            launch=self._desk.launch,
            next_port=lambda: self._desk.next_port(self.crew).port,
            publish=self.channels.publish,
            on_replace=lambda request: self._in_background(self._desk.replace(request, self.crew), "replace"),
            on_leave=lambda _reason: self._leave(),
            on_gone=lambda: self._in_background(self._after_a_worker(), "look"),
            on_peak=lambda loaded, peak: self.catalogue.note_peak(loaded, peak, int(time.time())),
            quarantines=self.quarantines,
            returns=Returns(self.devices, settings.detect_timeout_s),
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Live, from before the first request to after the last."""
        async with self.background:
            self._in_background(self._tidy_up(), "tidy")
            self._in_background(self._open_catalogue(), "catalogue")
            self._in_background(self.devices.watch(), "devices")
            self._in_background(self.crew.run(), "crew")
            self._in_background(
                log_rotation.watch(self.paths.logs, "*.log", max_mb=self.settings.log_max_mb), "log files"
            )
            yield
        await self.downloads.close()
        await self.catalogue.close()

    async def spawn(self, request: SpawnRequest) -> WorkerAccess:
        """Start a worker, see `SpawnDesk.spawn`."""
        try:
            return await self._desk.spawn(request, self.crew)
        finally:
            self._spawned.set()

    async def _end(self) -> ShutdownReceipt:
        self.channels.publish(Closing())
        receipts = await self.crew.stop_all("the hive is stopping")
        await self.downloads.close()
        log.info("all workers are gone", extra={"fields": {"workers": len(receipts)}})
        return ShutdownReceipt(
            node=self.settings.node, workers=receipts, gone=all(receipt.gone for receipt in receipts)
        )

    def _leave(self) -> None:
        self.drain.begin()

    def _heard_queen(self) -> None:
        self.crew.heard_queen()

    async def _hello(self) -> Hello:
        return Hello(
            hive_id=self.hive_id,
            version=__version__,
            detection=await self.devices.known(),
            models=self._models_seen,
            workers=self.crew.roster.links(),
            quarantined=self.quarantines.listed(),
        )

    async def _tidy_up(self) -> None:
        """Remove what an earlier life left; spawning waits for it, answering does not."""
        try:
            await asyncio.to_thread(leftovers.remove_leftovers, self.paths.home)
            await asyncio.to_thread(leftovers.prune_logs, self.paths.logs)
        finally:
            self._tidy.set()

    async def _after_a_worker(self) -> None:
        """See what is free now, and do not let logs pile up."""
        await self.devices.look()
        living = [link.worker.worker_id for link in self.crew.roster.links()]
        # One at a time: two would find each other's files gone.
        async with self._pruning:
            await asyncio.to_thread(leftovers.prune_logs, self.paths.logs, living)

    async def _open_catalogue(self) -> None:
        """Load the catalogue, but not beside the start of the first worker: that wants the processor more.

        Who connects before sees the models a moment later.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CATALOGUE_WITHIN_S):
                await self._spawned.wait()
            await asyncio.sleep(CATALOGUE_AFTER_A_SPAWN_S)
        await self._tell_models()

    def _models_changed(self) -> None:
        self._in_background(self._tell_models(), "models")

    async def _tell_models(self) -> None:
        try:
            self._models_seen = await self.catalogue.all()
        except RbeeError as error:
            log.error("no catalogue", extra={"fields": {"code": error.code.value, "reason": error.message}})
            # Who waits to hear which models are here must not wait for ever.
            self._models_seen = self._models_seen or []
        self.channels.publish(ModelsChanged(models=self._models_seen))

    def _in_background(self, work: object, name: str) -> None:
        assert asyncio.iscoroutine(work)
        self.background.start(work, name=name)


def database_url(settings: HiveSettings, paths: Paths) -> str:
    """Give the URL of the catalogue's database."""
    if settings.models_db is not None:
        return settings.models_db.get_secret_value()
    return f"sqlite:///{paths.home / 'models.db'}"


def callback_host(host: str) -> str:
    """Give the address at which the workers, on this machine, reach a hive that listens on *host*."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared with, not listened on
        return "127.0.0.1" if host == "0.0.0.0" else "[::1]"  # noqa: S104
    return f"[{host}]" if ":" in host else host
