"""Keep what the queen knows of the fleet, rebuilt from what hives report on their control channels.

Pure: messages and the time go in, views come out; nothing here waits, listens or looks at a clock.

Invariants (`check_invariants`):
* a hive that is not connected has no workers: its last report may be out of date, and is kept for people only;
* a worker is known to one hive only, is named as its own key says, and carries the name of its node;
* a worker that was reported gone is not listed;
* the indexes (workers by id and model, models by their names, hives by what is still to be heard of
  them) are what the hives give.

A change costs what it changes and the workers of its hive, whatever the size of the fleet.
A `Hello` replaces everything known of its hive, so that a queen that comes back knows what the one before it knew.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace

from rbee import __version__
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
    YieldedChanged,
)
from rbee.contracts.models import Capability
from rbee.contracts.queen import NodeQuarantine, UnreachableHive
from rbee.contracts.workers import WorkerAccess, WorkerInfo
from rbee.queen.hive import Hive, localize
from rbee.queen.known_models import KnownModels
from rbee.queen.worker_index import WorkerIndex, names_of

GONE_KEPT = 512
CAPABILITIES_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Changes:
    """What a step changed: the `names` of nodes, workers (by id) and models, and the workers that have `ended`."""

    names: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)


class Registry:
    """The fleet as known. Times are seconds of whatever clock the caller uses throughout.

    Args:
        version: that of this queen, which decides whose workers it may use.
        queen: its id, which decides whose declared names it knows; None where it knows all.
    """

    def __init__(self, version: str = __version__, queen: str | None = None) -> None:
        self.version = version
        self._queen = queen
        self.index = WorkerIndex()
        self.models = KnownModels()
        # Sorted by name.
        self._hives: dict[str, Hive] = {}
        self._connected: set[str] = set()
        self._unlisted: set[str] = set()
        self._untried: set[str] = set()
        self._gone: OrderedDict[str, WorkerGone] = OrderedDict()
        self._capabilities: OrderedDict[str, tuple[Capability, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._hives)

    @property
    def connected(self) -> Set[str]:
        """Return the nodes whose hives are connected."""
        return self._connected

    @property
    def unlisted(self) -> Set[str]:
        """Return the nodes whose hives are connected and have not reported their models."""
        return self._unlisted

    @property
    def untried(self) -> Set[str]:
        """Return the nodes whose hives have neither answered nor failed yet."""
        return self._untried

    def add_node(self, node: str, url: str) -> Changes:
        """Add a node; one that is known keeps what is known of it, at its new address."""
        changes, known = Changes(), self._hives.get(node)
        self._store(Hive(node, url) if known is None else replace(known, url=url), changes)
        if known is None:
            self._hives = dict(sorted(self._hives.items()))
        return changes

    def remove_node(self, node: str) -> Changes:
        """Remove a node and everything on it."""
        changes, hive = Changes(), self._hives.get(node)
        if hive is not None:
            self._store(Hive(node, hive.url), changes)  # without models and workers
            for nodes in (self._connected, self._unlisted, self._untried):
                nodes.discard(node)
            del self._hives[node]
        return changes

    def apply(self, node: str, message: HiveMessage, *, now: float) -> Changes:
        """Apply one message of *node*'s hive; one of a node that was removed is ignored."""
        changes, hive = Changes(), self._hives.get(node)
        if hive is None:
            return changes
        hive = replace(hive, last_seen=now)
        match message:
            case Hello():
                hive = self._apply_hello(hive, message, changes)
                for link in message.workers:
                    self._remember_capabilities(link.worker)
            case WorkerChanged(link=link) if hive.connected and link.worker.worker_id not in self._gone:
                known = localize(link, hive, self._queen)
                hive = replace(hive, workers={**hive.workers, link.worker.worker_id: known})
                self._claim(node, (link.worker.worker_id,), changes)
                self._remember_capabilities(link.worker)
            case WorkerGone(worker_id=worker_id) if not self._elsewhere(worker_id, node):
                self._remember_gone(message)
                changes.names.add(worker_id)
                changes.ended.add(worker_id)
                hive = replace(hive, workers={k: v for k, v in hive.workers.items() if k != worker_id})
            case ModelsChanged(models=models):
                hive = replace(hive, models=tuple(models), listed=True)
            case DevicesChanged(detection=detection):
                hive = replace(hive, detection=detection)
            case QuarantineChanged(quarantined=quarantined):
                hive = replace(hive, quarantined=tuple(quarantined))
            case YieldedChanged(yielded=yielded):
                hive = replace(hive, yielded=tuple(yielded))
            case Closing():
                hive = replace(hive, closing=True)
            case WorkerChanged() | WorkerGone() | Heartbeat():
                self._hives[node] = hive
                return changes
        self._store(hive, changes)
        return changes

    def lost(self, node: str, reason: str, *, ended: bool = False) -> Changes:
        """Note that the channel to *node* is closed, silent or cannot be opened; *reason* is for people.

        *ended* is whether the hive itself closed it, as it does at its end, and its workers' with it.
        """
        changes, hive = Changes(), self._hives.get(node)
        if hive is not None:
            last = tuple(link.worker for link in hive.workers.values()) if hive.connected else hive.last_workers
            hive = replace(
                hive,
                connected=False,
                closing=False,
                workers={},
                last_workers=() if ended or hive.closing else last,
                last_error=reason,
            )
            self._store(hive, changes)
        return changes

    def hive(self, node: str) -> Hive | None:
        """Return what is known of *node*, or None."""
        return self._hives.get(node)

    def hives(self, after: str = "", *, inclusive: bool = False) -> list[Hive]:
        """List hives by name: all, or those after a name, with it if *inclusive*."""
        if not after:
            return list(self._hives.values())
        names = list(self._hives)
        begin = (bisect_left if inclusive else bisect_right)(names, after)
        return [self._hives[name] for name in names[begin:]]

    def worker(self, worker_id: str) -> WorkerAccess | None:
        """Return a worker with its key, or None."""
        filed = self.index.find(worker_id)
        return None if filed is None else filed.link

    def workers(self, node: str | None = None) -> list[WorkerInfo]:
        """List the workers of the fleet, or of one node, by node and id."""
        return [hive.workers[worker_id].worker for hive in self._some(node) for worker_id in sorted(hive.workers)]

    def quarantined(self, node: str | None = None) -> list[NodeQuarantine]:
        """List what is quarantined in the fleet, or on one node."""
        return [
            NodeQuarantine(**each.model_dump(), node=hive.node)
            for hive in self._some(node)
            if hive.connected
            for each in hive.quarantined
        ]

    def unreachable(self, node: str | None = None) -> list[UnreachableHive]:
        """List the hives of the fleet, or that of one node, that were tried and do not answer."""
        return [
            UnreachableHive(
                node=hive.node,
                reason=hive.last_error,
                last_seen_unix=hive.last_seen,
                workers=[
                    worker
                    for worker in hive.last_workers
                    if self.index.find(worker.worker_id) is None and worker.worker_id not in self._gone
                ],
            )
            for hive in self._some(node)
            if not hive.connected and hive.last_error is not None
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
                filed = self.index.find(worker_id)
                assert filed is not None, f"{worker_id} is not in the index"
                expected = (hive.node, link, hive.kinds(link.worker, self.version))
                assert (filed.node, filed.link, filed.kinds) == expected, f"{worker_id} is filed otherwise"
        assert len(self.index) == len(owners), "workers are in the index that no hive has"
        self.index.check_invariants()
        hives, models = self._hives.values(), KnownModels()
        for hive in hives:
            models.catalog(hive.node, (), hive.models)
            for link in hive.workers.values():
                models.serve(link.worker.model_ref)
        assert models == self.models, "the models are not those of the hives"
        assert list(self._hives) == sorted(self._hives), "the hives are not sorted"
        assert self._connected == {hive.node for hive in hives if hive.connected}
        assert self._unlisted == {hive.node for hive in hives if hive.connected and not hive.listed}
        assert self._untried == {hive.node for hive in hives if not hive.connected and hive.last_error is None}
        assert len(self._gone) <= GONE_KEPT, "the memory of ended workers grows without bound"
        assert len(self._capabilities) <= CAPABILITIES_KEPT, "the memory of what models can do grows without bound"

    def _some(self, node: str | None) -> Iterable[Hive]:
        """Return all hives by name, or that of one node."""
        return self._hives.values() if node is None else [self._hives[node]] if node in self._hives else ()

    def _store(self, hive: Hive, changes: Changes) -> None:
        """Keep a hive as it is now, with the indexes; note in *changes* what that changed."""
        before, node = self._hives.get(hive.node), hive.node
        self._hives[node] = hive
        changes.names.add(node)
        for nodes, belongs in (
            (self._connected, hive.connected),
            (self._unlisted, hive.connected and not hive.listed),
            (self._untried, not hive.connected and hive.last_error is None),
        ):
            (nodes.add if belongs else nodes.discard)(node)
        earlier: Mapping[str, WorkerAccess] = {} if before is None else before.workers
        self._index_models(before, hive)
        for worker_id in earlier.keys() - hive.workers.keys():
            filed = self.index.find(worker_id)
            if filed is not None and filed.node == node:
                self.index.remove(worker_id)
                changes.names.update((worker_id, *filed.names))
        for worker_id, link in hive.workers.items():
            if self.index.put(node, link, hive.kinds(link.worker, self.version)):
                changes.names.update((worker_id, *names_of(link)))
        if before is not None:
            left = {*earlier, *(worker.worker_id for worker in before.last_workers)}
            left.difference_update(worker.worker_id for worker in hive.last_workers)
            changes.ended.update(worker_id for worker_id in left if self.index.find(worker_id) is None)
        # What was taken off another hive a moment ago has not ended.
        changes.ended.difference_update(hive.workers)

    def _index_models(self, before: Hive | None, hive: Hive) -> None:
        catalog, workers = ((), {}) if before is None else (before.models, before.workers)
        if hive.models is not catalog:
            self.models.catalog(hive.node, catalog, hive.models)
        if hive.workers is not workers:
            served = Counter(link.worker.model_ref for link in hive.workers.values())
            served.subtract(link.worker.model_ref for link in workers.values())
            for reference, more in served.items():
                for _ in range(abs(more)):
                    (self.models.serve if more > 0 else self.models.unserve)(reference)

    def _apply_hello(self, hive: Hive, hello: Hello, changes: Changes) -> Hive:
        links = {link.worker.worker_id: localize(link, hive, self._queen) for link in hello.workers}
        self._claim(hive.node, links, changes)
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
            yielded=tuple(hello.yielded),
            context_length=hello.context_length,
            idle_timeout_s=hello.idle_timeout_s,
            last_error=None,
        )

    def _elsewhere(self, worker_id: str, node: str) -> bool:
        """Return whether another node has the worker: what *node* reports of its end is then not about that one."""
        filed = self.index.find(worker_id)
        return filed is not None and filed.node != node

    def _claim(self, node: str, worker_ids: Iterable[str], changes: Changes) -> None:
        """Take workers off every other node: one hive reached under two names counts once, where it reported last."""
        for worker_id in worker_ids:
            filed = self.index.find(worker_id)
            if filed is not None and filed.node != node:
                other = self._hives[filed.node]
                kept = {k: v for k, v in other.workers.items() if k != worker_id}
                self._store(replace(other, workers=kept), changes)

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
