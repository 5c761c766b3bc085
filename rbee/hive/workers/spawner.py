"""Start a worker's process: get its model, choose device and port, build its specification, launch it."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rbee.config.credentials import new_key
from rbee.config.paths import Paths
from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import new_id
from rbee.contracts.models import CatalogEntry
from rbee.contracts.workers import SpawnRequest
from rbee.errors import RbeeError
from rbee.gguf.header import GgufHeader
from rbee.hive.devices import cpu
from rbee.hive.devices.monitor import DeviceMonitor
from rbee.hive.memory import LoadedModel, LoadOptions, cache_bytes, memory_limit, memory_need
from rbee.hive.models.catalog import Catalog
from rbee.hive.models.downloads import Downloads
from rbee.hive.models.headers import HeaderReader
from rbee.hive.options import idle_time, load_options
from rbee.hive.preflight import PreflightResult, choose_device
from rbee.hive.settings import HiveSettings
from rbee.hive.workers import orphans
from rbee.hive.workers.control_groups import ControlGroups
from rbee.hive.workers.ports import PortChoice, choose_port
from rbee.hive.workers.process import WorkerProcess, WorkerSpec, worker_program
from rbee.hive.workers.spare import SpareWorker
from rbee.model_reference import parse_reference

_ARM: Final = ("arm64", "aarch64")
SPARE_MIN_MEMORY_BYTES: Final = 4 * 1024**3
SPARE_LOG: Final = "worker-spare"  # among the logs of the workers, for those who follow these


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model that is on this machine: its row of the catalog and the header of its file."""

    entry: CatalogEntry
    header: GgufHeader


@dataclass(frozen=True, slots=True)
class SpawnPlan:
    """What is to be launched, and the memory that it is expected to take; `remark` is for the operator.

    `cache_bytes` of that memory are for the keys and values of all slots. `idle_s` is how long it stays while nobody
    uses it, None means for ever.
    """

    spec: WorkerSpec
    need_bytes: int
    cache_bytes: int
    loaded: LoadedModel
    idle_s: float | None
    remark: str


class WorkerSpawner:
    """Turns requests into processes. Which workers there are is told to it with each call.

    Args:
        callback_url: where workers report that their port is bound.
        on_key: called with every worker's key, to keep it out of the logs.
        groups: limits the memory of each worker.
    """

    def __init__(
        self,
        settings: HiveSettings,
        paths: Paths,
        *,
        devices: DeviceMonitor,
        downloads: Downloads,
        catalog: Catalog,
        headers: HeaderReader,
        callback_url: str,
        on_key: Callable[[str], None],
        groups: ControlGroups,
    ) -> None:
        self._settings = settings
        self._paths = paths
        self._devices = devices
        self._downloads = downloads
        self._catalog = catalog
        self._headers = headers
        self._callback_url = callback_url
        self._on_key = on_key
        self._groups = groups
        self._spare = SpareWorker(paths.home, paths.logs / f"{SPARE_LOG}.log")
        self._wants_spare = settings.spare_worker and cpu.detect().total_bytes >= SPARE_MIN_MEMORY_BYTES

    async def ensure_model(self, reference: str) -> LocalModel:
        """Download the model where it is not here, and read its header.

        Raises RbeeError: INVALID_MODEL_REF, whatever the download finds wrong, or WORKER_BINARY_NOT_FOUND, because
        without a program nothing should be downloaded.
        """
        worker_program(self._settings.worker_binary)
        entry = await self._downloads.ensure(parse_reference(reference))
        return LocalModel(entry, await self._headers.read(Path(entry.local_path)))

    async def estimate(self, request: SpawnRequest) -> dict[Backend, int]:
        """Return the bytes that a worker is expected to take on each backend of this machine.

        Raises RbeeError: INVALID_MODEL_REF, MODEL_NOT_FOUND for a model that is not in the catalog, MODEL_INVALID,
        INVALID_REQUEST for options that conflict.
        """
        entry = await self._catalog.get(parse_reference(request.model).canonical)
        header = await self._headers.read(Path(entry.local_path))
        needs = {}
        for backend in (await self._devices.detect()).backends:
            load = load_options(request, self._settings, backend, longest=header.context_length)
            measured = await self._catalog.peak(LoadedModel(entry.sha256 or entry.reference, entry.size_bytes, load))
            needs[backend] = memory_need(header, load, arm=_is_arm(), measured_bytes=measured)
        return needs

    async def plan(
        self,
        request: SpawnRequest,
        model: LocalModel,
        *,
        reserved: Mapping[tuple[Backend, int], int],
        ports: Collection[int],
        barred: Mapping[tuple[Backend, int], RbeeError],
    ) -> SpawnPlan:
        """Choose where and how the worker is to run.

        Args:
            reserved: bytes, by device, that workers which are still loading will take.
            ports: the ports of the other workers.
            barred: the devices that must not be used, each with the error for whoever needs it.

        Raises RbeeError: whatever preflight finds wrong, or WORKER_START_FAILED where no port is free.
        """
        settings, entry, header = self._settings, model.entry, model.header
        template = request.chat_template_file
        if template is not None and not _is_readable_file(template):
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"There is no chat template {template} on this machine, or the hive may not read it.",
                hint="Name a file on the machine of the worker, by its whole path.",
                param="chat_template_file",
            )

        def load_on(backend: Backend) -> LoadOptions:
            return load_options(request, settings, backend, longest=header.context_length)

        def loaded_on(backend: Backend) -> LoadedModel:
            return LoadedModel(entry.sha256 or entry.reference, entry.size_bytes, load_on(backend))

        def preflight(measured: Mapping[Backend, int | None]) -> PreflightResult:
            return choose_device(
                detection,
                header,
                backend=request.backend,
                device=request.device,
                load_on=load_on,
                promised=reserved,
                barred=barred,
                cpu_budget=self._devices.cpu_budget(),
                measured={backend: peak for backend, peak in measured.items() if peak is not None},
                arm=_is_arm(),
            )

        detection = await self._devices.detect()
        try:
            chosen = preflight({backend: self._catalog.peak_known(loaded_on(backend)) for backend in Backend})
        except RbeeError as error:
            if error.code not in (ErrorCode.RAM_EXHAUSTED, ErrorCode.VRAM_EXHAUSTED):
                raise
            # A spawn waits for the database only where a measurement in it may change the answer.
            chosen = preflight({backend: await self._catalog.peak(loaded_on(backend)) for backend in Backend})
        port = self.choose_port(ports)
        spec = WorkerSpec(
            worker_id=new_id("worker"),
            model_path=entry.local_path,
            model_ref=entry.reference,
            load=load_on(chosen.device.backend),
            device=chosen.device.index,
            host=settings.host,
            port=port.port,
            callback_url=self._callback_url,
            api_key=new_key(),
            threads=request.threads,
            chat_template_file=template,
        )
        self._on_key(spec.api_key)
        idle_s = idle_time(request.keep, settings.idle_timeout_s)
        cache = cache_bytes(header, spec.load)
        return SpawnPlan(spec, chosen.need_bytes, cache, loaded_on(spec.backend), idle_s, port.remark)

    def choose_port(self, ports: Collection[int]) -> PortChoice:
        """Choose a port for a worker, none of *ports*."""
        return choose_port(self._settings.host, self._settings.first_worker_port, ports)

    async def launch(self, spec: WorkerSpec, need_bytes: int) -> WorkerProcess:
        """Start the process of a worker that is expected to take *need_bytes*.

        Raises RbeeError as `WorkerProcess.start` does.
        """
        program = worker_program(self._settings.worker_binary)
        self._paths.make(self._paths.logs)
        log_path = self._paths.logs / f"{spec.worker_id}.log"
        process = await self._spare.take(program, spec, log_path) or await WorkerProcess.start(
            program, spec.arguments(), env=spec.environment(), home=self._paths.home, log_path=log_path
        )
        process.group = self._groups.admit(spec.worker_id, process.pid, memory_limit(need_bytes))
        return process

    async def ensure_spare(self) -> None:
        """Keep a spare worker where the settings and the machine's memory allow one."""
        if not self._wants_spare:
            return
        with contextlib.suppress(RbeeError):  # without a program there is no spare; a spawn says so
            await self._spare.ensure(worker_program(self._settings.worker_binary))

    async def close(self) -> None:
        """Stop the spare worker."""
        await self._spare.close()

    def remove_orphans(self) -> None:
        """Stop the workers that an earlier hive of this home left behind. Blocking."""
        orphans.remove_orphans(self._paths.home)

    def prune_logs(self, living: Collection[str]) -> None:
        """Remove the logs of workers long gone, none of those whose id is in *living*. Blocking."""
        orphans.prune_logs(self._paths.logs, [*living, SPARE_LOG])


def _is_arm() -> bool:
    return platform.machine().lower() in _ARM


def _is_readable_file(path: str) -> bool:
    return Path(path).is_file() and os.access(path, os.R_OK)
