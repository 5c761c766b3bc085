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
from rbee.contracts.control import Closing, DevicesChanged, Hello, ModelsChanged, QuarantineChanged, YieldedChanged
from rbee.contracts.devices import Backend, DeviceSelection, YieldRequest
from rbee.contracts.hives import DeviceYield, ResumeReceipt, ShutdownReceipt, YieldReceipt
from rbee.contracts.ids import new_id
from rbee.contracts.models import CatalogEntry
from rbee.contracts.workers import SpawnRequest, WorkerAccess
from rbee.daemonkit import log_rotation
from rbee.daemonkit.background import BackgroundTasks
from rbee.daemonkit.drain import Drain
from rbee.errors import RbeeError
from rbee.hive.control import ControlChannels
from rbee.hive.devices.budget import CpuBudget
from rbee.hive.devices.monitor import DeviceMonitor
from rbee.hive.models.catalog import Catalog
from rbee.hive.models.downloads import Downloads
from rbee.hive.models.headers import HeaderReader
from rbee.hive.models.limits import GB
from rbee.hive.models.sharing import Sharing
from rbee.hive.preflight import select_devices
from rbee.hive.quarantines import Quarantines
from rbee.hive.settings import HiveSettings
from rbee.hive.workers.control_groups import ControlGroups
from rbee.hive.workers.memory_reclaim import ReclaimChecker
from rbee.hive.workers.pool import WorkerPool
from rbee.hive.workers.spawner import WorkerSpawner
from rbee.hive.yields import Yields
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
        self.channels = ControlChannels(
            self._hello, lambda: self.workers.renew_lease(), energy=lambda: self.devices.energy()
        )
        self.devices = DeviceMonitor(
            settings.detect_timeout_s,
            lambda found: self.channels.publish(DevicesChanged(detection=found)),
            self._cpu_budget,
            own=lambda: self.workers.pids(),
        )
        self.catalog = Catalog(database_url(settings, paths), self._models_changed)
        self.headers = HeaderReader()
        self.downloads = Downloads(
            self.catalog, paths.models, settings.download_limits(), headers=self.headers, chance=random.random
        )
        self.sharing = Sharing(self.catalog, paths.models, mbps=settings.share_mbps)
        self.quarantines = Quarantines(
            settings.quarantine_s, lambda listed: self.channels.publish(QuarantineChanged(quarantined=listed))
        )
        self.yields = Yields(
            paths.home / "yielded.json", lambda listed: self.channels.publish(YieldedChanged(yielded=listed))
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
            reclaim=ReclaimChecker(self.devices),
            devices=self.devices,
            catalog=self.catalog,
            quarantines=self.quarantines,
            yields=self.yields,
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
            background.start(self.yields.watch(), name="yielded devices")
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

    async def yield_devices(self, request: YieldRequest) -> YieldReceipt:
        """Empty devices for another program, and keep them empty; return when their workers are gone.

        Queens are told first, so that they place nothing more there.

        Raises RbeeError: BACKEND_UNAVAILABLE, GPU_NOT_AVAILABLE, INVALID_DEVICE, DISK_FULL, PERMISSION_DENIED.
        """
        devices = select_devices(await self.devices.look(), request.backend, request.device)
        places = [(device.backend, device.index) for device in devices]
        await self.yields.add(places, request.for_s)
        until = {(each.backend, each.device): each.until_unix for each in self.yields.listed()}
        stopped = await self.workers.stop_on(places, "its device is yielded to another program", request.drain_s)
        after = {(device.backend, device.index): device for device in (await self.devices.look()).devices}
        return YieldReceipt(
            node=self.settings.node,
            devices=[
                DeviceYield(
                    device=after.get(place, device),
                    until_unix=until.get(place),
                    workers=[receipt for at, receipt in stopped if at == place],
                )
                for place, device in zip(places, devices, strict=True)
            ],
        )

    async def resume_devices(self, request: DeviceSelection) -> ResumeReceipt:
        """Use devices again, also those that the driver does not show now; return which of them were yielded.

        Raises RbeeError DISK_FULL or PERMISSION_DENIED.
        """
        backend, index = request.backend, request.device
        if backend is None and index is not None:
            backend = (await self.devices.known()).best
        yielded = [(each.backend, each.device) for each in self.yields.listed()]
        places = {place for place in yielded if backend in (None, place[0]) and index in (None, place[1])}
        return ResumeReceipt(node=self.settings.node, devices=await self.yields.remove(places))

    async def _end(self) -> ShutdownReceipt:
        self.channels.publish(Closing())
        receipts = await self.workers.stop_all("the hive is stopping")
        await self.downloads.close()
        log.info("all workers are gone", extra={"fields": {"workers": len(receipts)}})
        return ShutdownReceipt(
            node=self.settings.node, workers=receipts, gone=all(receipt.gone for receipt in receipts)
        )

    def _cpu_budget(self) -> CpuBudget | None:
        limit_gb = self.settings.cpu_memory_gb
        return None if limit_gb is None else CpuBudget(int(limit_gb * GB), self.workers.need_on(Backend.CPU))

    async def _hello(self) -> Hello:
        return Hello(
            hive_id=self.hive_id,
            version=__version__,
            detection=await self.devices.known(),
            models=self._models_seen,
            workers=self.workers.all(),
            quarantined=self.quarantines.listed(),
            yielded=self.yields.listed(),
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
