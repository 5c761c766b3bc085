"""The queen's figures for Prometheus, read when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rbee.queen.daemon import Queen


def exposition(queen: Queen) -> tuple[bytes, str]:
    """Give the text of all figures and its media type."""
    from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

    registry = CollectorRegistry()
    hives = Gauge("rbee_queen_hives", "Hives by whether their channel is up.", ["connected"], registry=registry)
    workers = Gauge("rbee_queen_workers", "Workers by node and state.", ["node", "state"], registry=registry)
    for hive in queen.fleet.registry.hives():
        hives.labels("yes" if hive.connected else "no").inc()
    for worker in queen.fleet.registry.workers():
        workers.labels(worker.node, worker.state.value).inc()
    Gauge("rbee_queen_tasks_running", "Tasks accepted and not yet ended.", registry=registry).set(len(queen.board))
    return generate_latest(registry), CONTENT_TYPE_LATEST
