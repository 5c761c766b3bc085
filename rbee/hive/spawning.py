"""Start a worker for a request: have the model, clear it with devices and memory, take a port, launch."""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Callable
from pathlib import Path

from rbee.config.credentials import new_key
from rbee.config.paths import Paths
from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import new_id
from rbee.contracts.models import CatalogEntry
from rbee.contracts.workers import SpawnRequest, WorkerAccess, WorkerState
from rbee.errors import RbeeError
from rbee.gguf.header import GgufHeader, read_header
from rbee.hive.crew import Crew
from rbee.hive.inventory import Devices
from rbee.hive.memory import Load, LoadedModel
from rbee.hive.models.catalog import Catalogue
from rbee.hive.models.downloads import Downloads
from rbee.hive.models.reference import parse_reference
from rbee.hive.ports import PortChoice, choose_port
from rbee.hive.preflight import Clearance, clear
from rbee.hive.processes import WorkerOrder, WorkerProcess, find_program
from rbee.hive.quarantines import Quarantines
from rbee.hive.settings import HiveSettings

log = logging.getLogger(__name__)
_ARM = ("arm64", "aarch64")


class SpawnDesk:
    """Turns requests into workers, one at a time, so that memory and ports are promised once.

    Args:
        callback_url: where workers report that their port is bound.
        tidy: set when the leftovers of an earlier life are gone.
        on_key: told every worker's key, to keep it out of the log.
    """

    def __init__(
        self,
        settings: HiveSettings,
        paths: Paths,
        *,
        devices: Devices,
        downloads: Downloads,
        catalogue: Catalogue,
        quarantines: Quarantines,
        callback_url: str,
        tidy: asyncio.Event,
        on_key: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._paths = paths
        self._devices = devices
        self._downloads = downloads
        self._catalogue = catalogue
        self._quarantines = quarantines
        self._callback_url = callback_url
        self._tidy = tidy
        self._on_key = on_key
        self._one_at_a_time = asyncio.Lock()

    async def spawn(self, request: SpawnRequest, crew: Crew) -> WorkerAccess:
        """Start a worker; it is loading when this returns.

        Raises RbeeError: INVALID_MODEL_REF, whatever fetching and preflight find wrong, WORKER_START_FAILED.
        """
        find_program(self._settings.worker_binary)
        entry = await self._downloads.ensure(parse_reference(request.model))
        header = await asyncio.to_thread(read_header, Path(entry.local_path))
        await self._tidy.wait()
        async with self._one_at_a_time:
            loading = crew.roster.loading(request, entry.reference) if request.join else None
            if loading is not None:
                return loading
            self._quarantines.admit(request, entry.reference)
            return await self._spawn(request, entry, header, crew)

    async def _spawn(self, request: SpawnRequest, entry: CatalogEntry, header: GgufHeader, crew: Crew) -> WorkerAccess:
        slots = request.slots or self._settings.slots
        wanted = request.context_length or self._settings.context_length
        context_length = min(wanted, header.context_length or wanted)

        settings = self._settings

        def load_on(backend: Backend) -> Load:
            return Load(
                backend,
                slots,
                context_length,
                cache_type=settings.cache_type,
                flash_attention=settings.flash_attention,
                prompt_batch=settings.prompt_batch,
                speculate=settings.speculate,
            )

        def as_loaded(backend: Backend) -> LoadedModel:
            return LoadedModel(entry.sha256 or entry.reference, entry.size_bytes, load_on(backend))

        def cleared(measured: dict[Backend, int | None]) -> Clearance:
            return clear(
                detection,
                header,
                backend=request.backend,
                device=request.device,
                load_on=load_on,
                promised=crew.roster.promised,
                barred=self._quarantines.barred(),
                measured={backend: peak for backend, peak in measured.items() if peak is not None},
                arm=platform.machine().lower() in _ARM,
            )

        detection = await self._devices.look()
        try:
            clearance = cleared({backend: self._catalogue.peak_known(as_loaded(backend)) for backend in Backend})
        except RbeeError as error:
            if error.code not in (ErrorCode.RAM_EXHAUSTED, ErrorCode.VRAM_EXHAUSTED):
                raise
            # A cold start does not wait for the database to be loaded, unless what it knows may change the answer.
            clearance = cleared({backend: await self._catalogue.peak(as_loaded(backend)) for backend in Backend})
        choice = self.next_port(crew)
        order = WorkerOrder(
            worker_id=new_id("worker"),
            model_path=entry.local_path,
            model_ref=entry.reference,
            backend=clearance.device.backend,
            device=clearance.device.index,
            slots=slots,
            context_length=context_length,
            host=settings.host,
            port=choice.port,
            callback_url=self._callback_url,
            api_key=new_key(),
            cache_type=settings.cache_type,
            prompt_batch=settings.prompt_batch,
            flash_attention=settings.flash_attention,
            speculate=settings.speculate,
        )
        self._on_key(order.api_key)
        host = f"[{order.host}]" if ":" in order.host else order.host
        url = f"http://{host}:{order.port}"
        loaded = as_loaded(order.backend)
        link = await crew.add(order, request, url, clearance.need_bytes, loaded, choice.remark)
        return link.model_copy(update={"worker": link.worker.model_copy(update={"state": WorkerState.LOADING})})

    def next_port(self, crew: Crew) -> PortChoice:
        """Choose the port of the next worker."""
        return choose_port(self._settings.host, self._settings.first_worker_port, crew.roster.ports)

    async def launch(self, order: WorkerOrder) -> WorkerProcess:
        """Start a worker's process."""
        program = find_program(self._settings.worker_binary)
        self._paths.make(self._paths.logs)
        log_path = self._paths.logs / f"{order.worker_id}.log"
        return await WorkerProcess.start(program, order, home=self._paths.home, log_path=log_path)

    async def replace(self, request: SpawnRequest, crew: Crew) -> None:
        """Spawn a worker in place of a stalled one; a failure is logged, nobody waits for it."""
        try:
            await self.spawn(request.model_copy(update={"join": True}), crew)
        except RbeeError as error:
            log.error("no replacement", extra={"fields": {"code": error.code.value, "reason": error.message}})
