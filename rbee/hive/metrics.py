"""The hive's figures for Prometheus, read when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rbee.hive.daemon import Hive


async def exposition(hive: Hive) -> tuple[bytes, str]:
    """Give the text of all figures and its media type."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()
    workers = Gauge("rbee_hive_workers", "Workers by state.", ["state"], registry=registry)
    slots = Gauge("rbee_hive_slots", "Slots of all workers, by whether they are free.", ["free"], registry=registry)
    for link in hive.crew.links():
        worker = link.worker
        workers.labels(worker.state.value).inc()
        slots.labels("yes").inc(worker.slots_available)
        slots.labels("no").inc(worker.slots_total - worker.slots_available)
    memory = Gauge(
        "rbee_hive_device_memory_bytes", "Memory by device.", ["backend", "device", "kind"], registry=registry
    )
    for device in (await hive.devices.known()).devices:
        memory.labels(device.backend.value, str(device.index), "total").set(device.total_bytes)
        memory.labels(device.backend.value, str(device.index), "free").set(device.free_bytes)
    Gauge("rbee_hive_queens_connected", "Queens with an open channel.", registry=registry).set(hive.channels.connected)
    return generate_latest(registry), CONTENT_TYPE_LATEST
