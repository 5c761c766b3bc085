"""Nodes with a GPU each and workers of declared models on them, for tests of what is decided for these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rbee.contracts.control import Hello, WorkerChanged, WorkerGone
from rbee.contracts.devices import Backend
from rbee.contracts.served import ServedModel
from rbee.contracts.workers import WorkerAccess, WorkerState
from rbee.queen.hive import Place
from rbee.queen.registry import Registry
from rbee.queen.scheduling.occupancy import Occupancy
from rbee.queen.scheduling.placement import Fleet, place
from rbee.queen.scheduling.request import PlacementRequest
from rbee.queen.serving.reconciler import Circumstances, End, Reconciliation, Start, reconcile
from tests.unit.queen.fleet import GB, VERSION, device, entry, hello, link

REFERENCE = "hf:org/repo:{}.gguf"
GPU = Backend.CUDA


def model(name: str, **more: Any) -> ServedModel:
    return ServedModel.model_validate({"name": name, "model": REFERENCE.format(name), **more})


def worker(worker_id: str, of: ServedModel, *, need: int = 6 * GB, **more: Any) -> WorkerAccess:
    """Make a worker of a declared model on a GPU."""
    keep = "always" if of.replicas or of.pinned else of.keep
    options = {"keep": keep, "revision": of.revision, "declared_by": "queen-1", **more}
    return link(worker_id, model=of.model, served=of.name, backend=GPU, need_bytes=need, **options)


class Machines:
    """Nodes with one GPU of 10 GB each, which workers take memory of, and a clock."""

    def __init__(self, *nodes: str, models: tuple[ServedModel, ...] = (), need: int = 6 * GB) -> None:
        self.registry = Registry(VERSION)
        self.occupancy = Occupancy()
        self.now = 1000.0
        self.need = need
        self.models = models
        self.workers: dict[str, list[WorkerAccess]] = {node: [] for node in nodes or ("h1",)}
        self.wanted: set[str] = set()
        self.occupancy.is_wanted = self.wanted.__contains__
        for node in self.workers:
            self.registry.add_node(node, f"http://{node}:9200")
            self._report(node)
        for each in models:
            self.occupancy.learn_need(each.name, each.revision, GPU, need)

    def add(self, node: str, *links: WorkerAccess) -> None:
        for each in links:
            self.workers[node].append(each)
            state = each.worker.state
            loading = each.worker.model_copy(update={"state": WorkerState.LOADING})
            self._say(node, WorkerAccess(worker=loading, api_key=each.api_key))
            if state is not WorkerState.LOADING:
                self.now += 2.0
                self._say(node, each)
        self._report(node)

    def end(self, node: str, worker_id: str) -> None:
        self.workers[node] = [each for each in self.workers[node] if each.worker.worker_id != worker_id]
        self.registry.apply(node, WorkerGone(worker_id=worker_id, reason="ended"), now=self.now)
        self._report(node)

    def fleet(self) -> Fleet:
        return Fleet(self.registry, occupancy=self.occupancy, now=self.now)

    def decide(
        self, *declared: ServedModel, starting: Mapping[Place, str] | None = None, **circumstances: Any
    ) -> Reconciliation:
        """Decide, where workers are *starting* on devices; each is being placed there unless `placing` is given."""
        under_way = starting or {}
        given = {"placing": frozenset(under_way), **circumstances}
        return reconcile(
            declared, self.fleet(), Circumstances(queen="queen-1", starting=tuple(under_way.items()), **given)
        )

    def place(self, of: ServedModel) -> object:
        return place(self.fleet(), asked(of))

    def _say(self, node: str, access: WorkerAccess) -> None:
        self.registry.apply(node, WorkerChanged(link=access), now=self.now)
        self.occupancy.observe(access.worker, self.now)

    def _report(self, node: str) -> None:
        taken = sum(each.worker.need_bytes or 0 for each in self.workers[node])
        models = [entry(each.model, 5 * GB) for each in self.models]
        message: Hello = hello(*self.workers[node], devices=[device(GPU, free=10 * GB - taken)], models=models)
        self.registry.apply(node, message, now=self.now)
        self.registry.check_invariants()


def asked(of: ServedModel) -> PlacementRequest:
    return PlacementRequest(of.model, served=of)


def started(found: Reconciliation) -> list[tuple[str, str]]:
    return [(step.model.name, step.site.node) for step in found.steps if isinstance(step, Start)]


def ended(found: Reconciliation) -> list[str]:
    return [step.worker.worker_id for step in found.steps if isinstance(step, End)]
