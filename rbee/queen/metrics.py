"""Render the queen's metrics for Prometheus, read when they are asked for."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rbee.daemonkit import prometheus
from rbee.observe import metrics

if TYPE_CHECKING:
    from rbee.queen.daemon import Queen


def render_metrics(queen: Queen) -> tuple[bytes, str]:
    """Return the text of all metrics and its media type."""
    hives: Counter[tuple[str, ...]] = Counter({("yes",): 0, ("no",): 0})
    nodes: Counter[tuple[str, ...]] = Counter()
    workers: Counter[tuple[str, ...]] = Counter()
    slots: Counter[tuple[str, ...]] = Counter()
    for hive in queen.fleet.registry.hives():
        hives["yes" if hive.connected else "no",] += 1
        nodes[hive.node,] = int(hive.connected)
    for worker in queen.fleet.registry.workers():
        workers[worker.node, worker.state.value] += 1
        slots[worker.node, "yes"] += worker.slots_available
        slots[worker.node, "no"] += worker.slots_total - worker.slots_available
    return prometheus.exposition(
        "queen",
        {
            metrics.QUEEN_HIVES: hives,
            metrics.QUEEN_NODES: nodes,
            metrics.QUEEN_WORKERS: workers,
            metrics.QUEEN_SLOTS: slots,
            metrics.QUEEN_WAITING: queen.tasks.waiting,
            metrics.QUEEN_RUNNING: len(queen.tasks),
        },
    )
