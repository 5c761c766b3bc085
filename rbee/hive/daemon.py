"""The hive as a whole: builds its parts, connects them, starts and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sys
import time
from collections.abc import AsyncIterator, Callable

from rbee import __version__, landlock
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
from rbee.hive.control import ControlChannels
from rbee.hive.devices.monitor import DeviceMonitor
from rbee.hive.models.catalog import Catalog
from rbee.hive.models.downloads import Downloads
from rbee.hive.models.headers import HeaderReader
from rbee.hive.quarantines import Quarantines
from rbee.hive.settings import HiveSettings
from rbee.hive.workers.control_groups import ControlGroups
from rbee.hive.workers.memory_reclaim import ReclaimChecker
from rbee.hive.workers.pool import WorkerPool
from rbee.hive.workers.spawner import WorkerSpawner
from rbee.net import host_port

log = logging.getLogger(__name__)
CATALOG_WITHIN_S = 0.5
CATALOG_AFTER_SPAWN_S = 0.6  # a small model has given its first token by then
SWEEP_INTERVAL_S = 86_400.0
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not listened on


class Hive:
    """One hive daemon. It can be built anywhere; `running` needs an event loop.

    Args:
        port: the port that is bound already.
        on_key: called with every key that is made, to keep it out of the logs.
    """

    def __init__(self, settings: HiveSettings, paths: Paths, *, port: int, on_key: Callable[[str], None]) -> None:
        self.settings = settings
        self.paths = paths
        self.hive_id = new_id("hive")
        self.started_unix = time.time()
        self.drain: Drain[ShutdownReceipt] = Drain(self._end, name="The hive")
        self._background = BackgroundTasks()
        self._models_seen: list[CatalogEntry] | None = None
        self._spawned = asyncio.Event()
        self.channels = ControlChannels(self._hello, lambda: self.workers.renew_lease())
        self.devices = DeviceMonitor(
            settings.detect_timeout_s, lambda found: self.channels.publish(DevicesChanged(detection=found))
        )
        self.catalog = Catalog(database_url(settings, paths), self._models_changed)
        self.headers = HeaderReader()
        self.downloads = Downloads(
            self.catalog, paths.models, settings.download_limits(), headers=self.headers, chance=random.random
        )
        self.quarantines = Quarantines(
            settings.quarantine_s, lambda listed: self.channels.publish(QuarantineChanged(quarantined=listed))
        )
        self.workers = WorkerPool(
            WorkerSpawner(
                settings,
                paths,
                devices=self.devices,
                downloads=self.downloads,
                catalog=self.catalog,
                headers=self.headers,
                callback_url=callback_url(settings.host, port),
                on_key=on_key,
                groups=ControlGroups.open(),
            ),
            settings.policy(),
            reclaim=ReclaimChecker(self.devices, settings.detect_timeout_s),
            devices=self.devices,
            catalog=self.catalog,
            quarantines=self.quarantines,
            channels=self.channels,
            background=self._background,
            shut_down=self.drain.begin,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run from before the first request to after the last."""
        if sys.platform == "linux" and not landlock.abi_version():
            log.warning("workers are not confined: the kernel has no Landlock, or it is switched off")
        async with self._background as background:
            background.start(self.workers.run(), name="workers")
            background.start(self._keep_models(), name="models on disk")
            background.start(self.devices.watch(), name="devices")
            background.start(
                log_rotation.watch(self.paths.logs, "worker-*.log", max_mb=self.settings.log_max_mb), name="log files"
            )
            yield
        await self.downloads.close()
        await self.catalog.close()

    async def spawn(self, request: SpawnRequest) -> WorkerAccess:
        """Start a worker, see `WorkerPool.spawn`."""
        try:
            return await self.workers.spawn(request)
        finally:
            self._spawned.set()

    async def _end(self) -> ShutdownReceipt:
        self.channels.publish(Closing())
        receipts = await self.workers.stop_all("the hive is stopping")
        await self.downloads.close()
        log.info("all workers are gone", extra={"fields": {"workers": len(receipts)}})
        return ShutdownReceipt(
            node=self.settings.node, workers=receipts, gone=all(receipt.gone for receipt in receipts)
        )

    async def _hello(self) -> Hello:
        return Hello(
            hive_id=self.hive_id,
            version=__version__,
            detection=await self.devices.known(),
            models=self._models_seen,
            workers=self.workers.all(),
            quarantined=self.quarantines.listed(),
            context_length=self.settings.context_length,
            idle_timeout_s=self.settings.idle_timeout_s,
        )

    async def _keep_models(self) -> None:
        """Open the catalog; then remove, now and once a day, what unfinished downloads left."""
        await self._open_catalog()
        while True:
            try:
                await self.downloads.sweep()
            except OSError as error:
                log.error("the folder of models cannot be swept", extra={"fields": {"reason": str(error)}})
            await asyncio.sleep(SWEEP_INTERVAL_S)

    async def _open_catalog(self) -> None:
        """Open the catalog, but not while the first worker starts, which needs the processor more.

        A queen that connects before is sent the models a moment later.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CATALOG_WITHIN_S):
                await self._spawned.wait()
            await asyncio.sleep(CATALOG_AFTER_SPAWN_S)
        await self._publish_models()

    def _models_changed(self) -> None:
        self._background.start(self._publish_models(), name="models")

    async def _publish_models(self) -> None:
        try:
            self._models_seen = await self.catalog.all()
        except RbeeError as error:
            log.error(
                "the catalog cannot be read", extra={"fields": {"code": error.code.value, "reason": error.message}}
            )
            # A queen that waits for the list of models must not wait for ever.
            self._models_seen = self._models_seen or []
        self.channels.publish(ModelsChanged(models=self._models_seen))


def database_url(settings: HiveSettings, paths: Paths) -> str:
    """Return the URL of the catalog's database."""
    if settings.models_db is not None:
        return settings.models_db.get_secret_value()
    return f"sqlite:///{paths.home / 'models.db'}"


def callback_url(host: str, port: int) -> str:
    """Return where the workers, on this machine, report to a hive that listens on *host* and *port*."""
    return f"http://{host_port(_LOOPBACK.get(host, host), port)}/v1/workers/ready"
