"""Render the hive's metrics for Prometheus, on request."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from rbee.daemonkit import prometheus
from rbee.hive.models.disk_space import DiskSpace
from rbee.observe import metrics

if TYPE_CHECKING:
    from rbee.hive.daemon import Hive


async def render_metrics(hive: Hive) -> tuple[bytes, str]:
    """Return the text of all metrics and its media type."""
    workers: Counter[tuple[str, ...]] = Counter()
    slots: Counter[tuple[str, ...]] = Counter({("yes",): 0, ("no",): 0})
    for link in hive.workers.all():
        worker = link.worker
        workers[worker.state.value,] += 1
        slots["yes",] += worker.slots_available
        slots["no",] += worker.slots_total - worker.slots_available
    memory: dict[tuple[str, ...], float] = {}
    for device in (await hive.devices.known()).devices:
        total, free = float(device.total_bytes), float(device.free_bytes)
        for kind, value in (("total", total), ("used", max(total - free, 0.0)), ("free", free)):
            memory[device.backend.value, str(device.index), kind] = value
    total_disk, free_disk = await asyncio.to_thread(DiskSpace.usage, hive.paths.models)
    kept_out: Counter[tuple[str, ...]] = Counter({("model",): 0, ("device",): 0})
    kept_out.update(("device" if each.model_ref is None else "model",) for each in hive.quarantines.listed())
    return prometheus.exposition(
        "hive",
        {
            metrics.HIVE_WORKERS: workers,
            metrics.HIVE_SLOTS: slots,
            metrics.HIVE_MEMORY: memory,
            metrics.HIVE_DOWNLOADING: len(hive.downloads.running),
            metrics.HIVE_QUARANTINED: kept_out,
            metrics.HIVE_DISK: {("total",): float(total_disk), ("free",): float(free_disk)},
            metrics.HIVE_QUEENS: hive.channels.connected,
        },
    )
