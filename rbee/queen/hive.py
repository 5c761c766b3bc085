"""Describe one hive as the queen knows it, and the address at which its workers are reached. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from rbee.contracts.devices import Backend, Detection, YieldedDevice
from rbee.contracts.hives import HiveInfo
from rbee.contracts.models import CatalogEntry
from rbee.contracts.version import is_compatible
from rbee.contracts.workers import Quarantine, WorkerAccess, WorkerInfo
from rbee.net import host_port

Place = tuple[str, Backend, int]
"""A device of the fleet: node, backend, index."""
UNSPECIFIED = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


@dataclass(frozen=True, slots=True)
class Hive:
    """One hive as known: `connected` from its Hello to the loss of its channel, `closing` once it drains.

    `listed` is whether it has reported its `models`; until then they are those of its previous run. `last_workers` are
    those of a hive that has fallen silent. `context_length` and `idle_timeout_s` are its settings for workers.
    """

    node: str
    url: str
    connected: bool = False
    closing: bool = False
    hive_id: str | None = None
    version: str | None = None
    detection: Detection = field(default_factory=lambda: Detection(devices=[]))
    models: tuple[CatalogEntry, ...] = ()
    listed: bool = False
    workers: Mapping[str, WorkerAccess] = field(default_factory=dict)
    last_workers: tuple[WorkerInfo, ...] = ()
    quarantined: tuple[Quarantine, ...] = ()
    yielded: tuple[YieldedDevice, ...] = ()
    context_length: int | None = None
    idle_timeout_s: float | None = None
    last_seen: float | None = None
    last_error: str | None = None

    def kinds(self, worker: WorkerInfo, ours: str) -> tuple[Backend | None, ...]:
        """Return for which backends requests may use one of its workers, None for requests that name none.

        There are none where a queen of version *ours* may not use the hive now, or the worker's device is yielded.
        """
        usable = self.connected and not self.closing and self.version is not None and is_compatible(ours, self.version)
        backend = worker.backend
        if not usable or backend not in self.detection.backends or self.yielded_at(backend, worker.device):
            return ()
        return (backend, None) if backend is self.detection.best else (backend,)

    def yielded_at(self, backend: Backend, device: int) -> YieldedDevice | None:
        """Return until when a device is yielded to another program; None where it is not."""
        return next((each for each in self.yielded if (each.backend, each.device) == (backend, device)), None)

    def info(self) -> HiveInfo:
        """Return the form that lists show, without keys."""
        return HiveInfo(
            node=self.node,
            url=self.url,
            connected=self.connected,
            version=self.version,
            backends=self.detection.backends,
            devices=self.detection.devices,
            faults=self.detection.faults,
            models=list(self.models),
            workers=[link.worker for link in self.workers.values()],
            quarantined=list(self.quarantined),
            yielded=list(self.yielded),
            last_seen_unix=self.last_seen,
            last_error=self.last_error,
        )


def localize(link: WorkerAccess, hive: Hive, queen: str | None = None) -> WorkerAccess:
    """Return a worker with the queen's name for its node and the address at which the queen reaches it.

    A hive does not know what it is called, and a worker that listens everywhere has an address only seen from outside.
    What another queen than *queen* has declared has no declared name here: under it, this one serves another model.
    """
    worker = link.worker
    url = reachable(worker.url, hive.url)
    served = worker.served if queen is None or worker.declared_by in (None, queen) else None
    if (worker.node, worker.url, worker.served) == (hive.node, url, served):
        return link
    changed = {"node": hive.node, "url": url, "served": served}
    return link.model_copy(update={"worker": worker.model_copy(update=changed)})


def reachable(url: str, hive_url: str) -> str:
    """Return *url* with the host at which its hive is reached, where its own host means "everywhere"."""
    worker, hive = urlsplit(url), urlsplit(hive_url)
    if worker.hostname not in UNSPECIFIED or not hive.hostname:
        return url
    return worker._replace(netloc=host_port(hive.hostname, worker.port or 80)).geturl()
