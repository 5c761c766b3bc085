"""Keep what the queen knows of the fleet, rebuilt from what hives report on their control channels.

Pure: messages and the time go in, views come out; nothing here waits, listens or looks at a clock.

Invariants (`check_invariants`):
* a hive that is not connected has no workers: its last report may be out of date, and is kept for people only;
* a worker is known to one hive only, is named as its own key says, and carries the name of its node;
* a worker that was reported gone is not listed.

A `Hello` replaces everything known of its hive, so that a queen that comes back knows what the one before it knew.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from rbee.contracts.control import (
    Closing,
    DevicesChanged,
    Heartbeat,
    Hello,
    HiveMessage,
    ModelsChanged,
    QuarantineChanged,
    WorkerChanged,
    WorkerGone,
)
from rbee.contracts.devices import Detection
from rbee.contracts.hives import HiveInfo
from rbee.contracts.models import Capability, CatalogEntry
from rbee.contracts.queen import NodeQuarantine, UnreachableHive
from rbee.contracts.workers import Quarantine, WorkerAccess, WorkerInfo
from rbee.net import host_port

GONE_KEPT = 512
CAPABILITIES_KEPT = 1024
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
    context_length: int | None = None
    idle_timeout_s: float | None = None
    last_seen: float | None = None
    last_error: str | None = None

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
            last_seen_unix=self.last_seen,
            last_error=self.last_error,
        )


class Registry:
    """The fleet as known. Times are seconds of whatever clock the caller uses throughout."""

    def __init__(self) -> None:
        # Sorted by name: they are listed for every request.
        self._hives: dict[str, Hive] = {}
        self._gone: OrderedDict[str, WorkerGone] = OrderedDict()
        self._capabilities: OrderedDict[str, tuple[Capability, ...]] = OrderedDict()

    def add_node(self, node: str, url: str) -> None:
        """Add a node; one that is known keeps what is known of it, at its new address."""
        known = self._hives.get(node)
        hive = Hive(node, url) if known is None else replace(known, url=url)
        self._hives = dict(sorted({**self._hives, node: hive}.items()))

    def remove_node(self, node: str) -> None:
        """Remove a node and everything on it."""
        self._hives.pop(node, None)

    def apply(self, node: str, message: HiveMessage, *, now: float) -> None:
        """Apply one message of *node*'s hive; one of a node that was removed is ignored."""
        hive = self._hives.get(node)
        if hive is None:
            return
        hive = replace(hive, last_seen=now)
        match message:
            case Hello():
                hive = self._apply_hello(hive, message)
                for link in message.workers:
                    self._remember_capabilities(link.worker)
            case WorkerChanged(link=link) if hive.connected and link.worker.worker_id not in self._gone:
                hive = replace(hive, workers={**hive.workers, link.worker.worker_id: _localize(link, hive)})
                self._claim(node, (link.worker.worker_id,))
                self._remember_capabilities(link.worker)
            case WorkerGone(worker_id=worker_id) if not self._elsewhere(worker_id, node):
                self._remember_gone(message)
                hive = replace(hive, workers={k: v for k, v in hive.workers.items() if k != worker_id})
            case ModelsChanged(models=models):
                hive = replace(hive, models=tuple(models), listed=True)
            case DevicesChanged(detection=detection):
                hive = replace(hive, detection=detection)
            case QuarantineChanged(quarantined=quarantined):
                hive = replace(hive, quarantined=tuple(quarantined))
            case Closing():
                hive = replace(hive, closing=True)
            case WorkerChanged() | WorkerGone() | Heartbeat():
                pass
        self._hives[node] = hive

    def lost(self, node: str, reason: str, *, ended: bool = False) -> None:
        """Note that the channel to *node* is closed, silent or cannot be opened; *reason* is for people.

        *ended* is whether the hive itself closed it, as it does at its end, and its workers' with it.
        """
        hive = self._hives.get(node)
        if hive is not None:
            last = tuple(link.worker for link in hive.workers.values()) if hive.connected else hive.last_workers
            self._hives[node] = replace(
                hive,
                connected=False,
                closing=False,
                workers={},
                last_workers=() if ended or hive.closing else last,
                last_error=reason,
            )

    def hive(self, node: str) -> Hive | None:
        """Return what is known of *node*, or None."""
        return self._hives.get(node)

    def hives(self) -> list[Hive]:
        """List all hives by name."""
        return list(self._hives.values())

    def worker(self, worker_id: str) -> WorkerAccess | None:
        """Return a worker with its key, or None."""
        return next((hive.workers[worker_id] for hive in self._hives.values() if worker_id in hive.workers), None)

    def workers(self, node: str | None = None) -> list[WorkerInfo]:
        """List the workers of the fleet, or of one node, by node and id."""
        return [
            hive.workers[worker_id].worker
            for hive in self.hives()
            if node is None or hive.node == node
            for worker_id in sorted(hive.workers)
        ]

    def quarantined(self, node: str | None = None) -> list[NodeQuarantine]:
        """List what is quarantined in the fleet, or on one node."""
        return [
            NodeQuarantine(**each.model_dump(), node=hive.node)
            for hive in self.hives()
            if hive.connected and node in (None, hive.node)
            for each in hive.quarantined
        ]

    def unreachable(self, node: str | None = None) -> list[UnreachableHive]:
        """List the hives of the fleet, or that of one node, that were tried and do not answer."""
        live = {worker_id for hive in self._hives.values() for worker_id in hive.workers}
        return [
            UnreachableHive(
                node=hive.node,
                reason=hive.last_error,
                last_seen_unix=hive.last_seen,
                workers=[
                    worker
                    for worker in hive.last_workers
                    if worker.worker_id not in live and worker.worker_id not in self._gone
                ],
            )
            for hive in self.hives()
            if not hive.connected and hive.last_error is not None and node in (None, hive.node)
        ]

    def gone(self, worker_id: str) -> WorkerGone | None:
        """Return the report of a worker's end, if it was one of the latest."""
        return self._gone.get(worker_id)

    def capabilities(self, reference: str) -> tuple[Capability, ...]:
        """Return what a model can do, by the last worker that had it loaded; none where none had."""
        return self._capabilities.get(reference, ())

    def check_invariants(self) -> None:
        """Raise AssertionError where an invariant of this module does not hold."""
        owners: dict[str, str] = {}
        for hive in self._hives.values():
            assert hive.connected or not hive.workers, f"{hive.node} is not connected and has workers"
            assert not (hive.connected and hive.last_workers), f"{hive.node} is connected and has workers of the past"
            for worker_id, link in hive.workers.items():
                assert link.worker.worker_id == worker_id, f"{worker_id} is filed under another name"
                assert link.worker.node == hive.node, f"{worker_id} says it is on {link.worker.node}"
                assert worker_id not in self._gone, f"{worker_id} is gone and listed"
                assert owners.setdefault(worker_id, hive.node) == hive.node, f"{worker_id} is on two nodes"
        assert len(self._gone) <= GONE_KEPT, "the memory of ended workers grows without bound"
        assert len(self._capabilities) <= CAPABILITIES_KEPT, "the memory of what models can do grows without bound"

    def _apply_hello(self, hive: Hive, hello: Hello) -> Hive:
        links = {link.worker.worker_id: _localize(link, hive) for link in hello.workers}
        self._claim(hive.node, links)
        for worker_id in links:
            self._gone.pop(worker_id, None)
        return replace(
            hive,
            connected=True,
            closing=False,
            hive_id=hello.hive_id,
            version=hello.version,
            detection=hello.detection,
            models=hive.models if hello.models is None else tuple(hello.models),
            listed=hello.models is not None,
            workers=links,
            last_workers=(),
            quarantined=tuple(hello.quarantined),
            context_length=hello.context_length,
            idle_timeout_s=hello.idle_timeout_s,
            last_error=None,
        )

    def _elsewhere(self, worker_id: str, node: str) -> bool:
        """Return whether another node has the worker: what *node* reports of its end is then not about that one."""
        return any(worker_id in hive.workers for hive in self._hives.values() if hive.node != node)

    def _claim(self, node: str, worker_ids: Iterable[str]) -> None:
        """Take workers off every other node: one hive reached under two names counts once, where it reported last."""
        claimed = set(worker_ids)
        for other in self._hives.values():
            if other.node != node and claimed & other.workers.keys():
                kept = {k: v for k, v in other.workers.items() if k not in claimed}
                self._hives[other.node] = replace(other, workers=kept)

    def _remember_capabilities(self, worker: WorkerInfo) -> None:
        if worker.capabilities:
            self._capabilities[worker.model_ref] = tuple(worker.capabilities)
            self._capabilities.move_to_end(worker.model_ref)
            while len(self._capabilities) > CAPABILITIES_KEPT:
                self._capabilities.popitem(last=False)

    def _remember_gone(self, message: WorkerGone) -> None:
        self._gone[message.worker_id] = message
        self._gone.move_to_end(message.worker_id)
        while len(self._gone) > GONE_KEPT:
            self._gone.popitem(last=False)


def _localize(link: WorkerAccess, hive: Hive) -> WorkerAccess:
    """Return a worker with the queen's name for its node and the address at which the queen reaches it.

    A hive does not know what it is called, and a worker that listens everywhere has an address only seen from outside.
    """
    url = reachable(link.worker.url, hive.url)
    if link.worker.node == hive.node and link.worker.url == url:
        return link
    return link.model_copy(update={"worker": link.worker.model_copy(update={"node": hive.node, "url": url})})


def reachable(url: str, hive_url: str) -> str:
    """Return *url* with the host at which its hive is reached, where its own host means "everywhere"."""
    worker, hive = urlsplit(url), urlsplit(hive_url)
    if worker.hostname not in UNSPECIFIED or not hive.hostname:
        return url
    return worker._replace(netloc=host_port(hive.hostname, worker.port or 80)).geturl()
