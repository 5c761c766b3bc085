"""Decide what is to be done so that what is declared is served, and that requests which wait for memory get it.

Pure: declarations and the fleet as known go in, steps come out, each with its reason. The loop performs them and asks
again after each change, so that a step is only ever the next one.

Rules:
* a declared model has as many workers as it has replicas, of its present settings, spread over the nodes, also those
  that come later;
* a worker of other settings serves until enough new ones do; where there is no memory for both, it ends first, once
  its requests have;
* a model that has all its workers moves none into the room of one that lacks some;
* only a pinned model (`keep: always`) makes others give way for its replicas; the others take what is free;
* requests that wait for memory get it in the order in which they began to wait: the workers in their way get no
  further requests, and end once they are idle;
* what is no longer declared ends once it is idle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rbee.contracts.workers import WorkerInfo, WorkerState
from rbee.queen.hive import Place
from rbee.queen.scheduling.placement import Fleet
from rbee.queen.scheduling.rejections import Rejection, in_the_way
from rbee.queen.scheduling.request import PlacementRequest
from rbee.queen.scheduling.room import Site
from rbee.queen.scheduling.sites import is_idle, survey

if TYPE_CHECKING:
    from rbee.contracts.served import ServedModel

_ALIVE = (WorkerState.STARTING, WorkerState.LOADING, WorkerState.IDLE, WorkerState.BUSY)


@dataclass(frozen=True, slots=True)
class Start:
    """Start a worker of a declared model at a site, after what is in its way has ended."""

    model: ServedModel
    site: Site
    reason: str


@dataclass(frozen=True, slots=True)
class End:
    """Stop a worker, which nobody uses."""

    worker: WorkerInfo
    reason: str


Step = Start | End


@dataclass(frozen=True, slots=True)
class Status:
    """How a declared model stands: in a word, and why it is not as declared where it is not."""

    state: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """The starts of one model that failed since the last that did not: the last reason, and how many for each device.

    `delays` says that it is too early for the next one.
    """

    reason: str
    delays: bool = False
    places: Mapping[Place, int] = field(default_factory=dict)


_NONE_FAILED = Failed("")


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What keeps steps from being taken now.

    Attributes:
        starting: devices on which a worker is being started, or its model fetched for one, with the name of the model.
        placing: those of them on which room is being made, or a process started, at this moment.
        ending: ids of workers that are being stopped.
        failed: the starts that failed, by the name of the model.
        lost: nodes whose hive fell silent a moment ago: what ran there still counts.
        waiting: requests that wait for memory, the first to come first.
        queen: the id of this queen: what another one has declared is not its business.
    """

    starting: Collection[tuple[Place, str]] = ()
    placing: frozenset[Place] = frozenset()
    ending: frozenset[str] = frozenset()
    failed: Mapping[str, Failed] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()
    waiting: Sequence[PlacementRequest] = ()
    queen: str | None = None


@dataclass(slots=True)
class Reconciliation:
    """The next steps, the workers that get no further requests, the devices that are held, and how all models stand."""

    steps: list[Step] = field(default_factory=list)
    retiring: set[str] = field(default_factory=set)
    claims: dict[Place, str] = field(default_factory=dict)
    status: dict[str, Status] = field(default_factory=dict)


def reconcile(declared: Sequence[ServedModel], fleet: Fleet, circumstances: Circumstances) -> Reconciliation:
    """Return what is to be done next."""
    plan = _Plan(fleet, circumstances)
    live = [
        worker
        for worker in fleet.registry.workers()
        if worker.state in _ALIVE and worker.served is not None and worker.declared_by == circumstances.queen
    ]
    names = {model.name for model in declared}
    for worker in live:
        if worker.served not in names:
            plan.retire(worker, f"{worker.served} is not declared any more")
    # One that may run on some nodes only has its choice there before one that may run anywhere.
    for model in sorted(declared, key=lambda each: (not each.pinned, not each.where.nodes, each.name)):
        plan.keep(model, [worker for worker in live if worker.served == model.name])
    plan.spread()
    for request in circumstances.waiting:
        plan.make_room(request)
    return plan.result


class _Plan:
    """What was decided so far. `used` are devices on which room is being made for a worker, or will be."""

    def __init__(self, fleet: Fleet, circumstances: Circumstances) -> None:
        self.result = Reconciliation()
        self._fleet = fleet
        self._circumstances = circumstances
        self._used = set(circumstances.placing)
        self._complete: list[tuple[ServedModel, Counter[str]]] = []

    def keep(self, model: ServedModel, own: list[WorkerInfo]) -> None:
        """Decide the next step for one declared model, whose workers are *own*."""
        current = [worker for worker in own if _is_as_declared(worker, model)]
        old = [worker for worker in own if worker not in current]
        serving = [worker for worker in current if worker.state.serves]
        # On demand, what runs with other settings is replaced where somebody uses it, and else just ends.
        wanted = model.replicas or int(any(not self._is_idle(worker) for worker in old))
        for worker in self._idle_first(old)[: max(len(serving) + len(old) - wanted, 0)]:
            self.retire(worker, f"the declaration of {model.name} has changed")
        self._end_surplus(model, current)
        starting = self._starting(model, own)
        missing = wanted - len(current) - len(starting) - self._lost(model)
        failed = self._circumstances.failed.get(model.name, _NONE_FAILED)
        taken = Counter([*(worker.node for worker in current), *(node for node, _, _ in starting)])
        reason = failed.reason if missing > 0 or starting else ""
        if missing > 0 and not failed.delays:
            reason = self._start_one(model, taken, old, failed) or reason
        elif not missing and len(serving) == len(own) > 1 and not failed.delays:
            self._complete.append((model, taken))
        loading = len(starting) + len(current) - len(serving)
        earlier = sum(worker.state.serves for worker in old)
        self.result.status[model.name] = _status(model, len(serving), earlier, wanted, loading, reason)

    def spread(self) -> None:
        """Plan to spread the workers of models that have all of them: in the room that the others have left."""
        for model, taken in self._complete:
            self._spread(model, taken)

    def make_room(self, request: PlacementRequest) -> None:
        """Hold a device for a request that waits for memory, and retire what is in its way, unless that must stay."""
        sites = self._sites(request)
        if any(site.room.fits or site.room.fits_after_eviction for site in sites):
            return  # the request starts its worker itself
        fleet = self._fleet
        ripe = [
            site
            for site in sites
            if site.room.place not in self._used
            and site.room.held_for in (None, request.name)
            and not any(fleet.occupancy.is_protected(worker, fleet.now) for worker in site.room.blockers)
        ]
        if ripe:
            room = min(ripe, key=lambda site: (not site.model_present, len(site.room.blockers), site.rank)).room
            self._used.add(room.place)
            self.result.claims[room.place] = request.name
            self.result.retiring.update(worker.worker_id for worker in (*room.blockers, *room.evict))

    def retire(self, worker: WorkerInfo, reason: str) -> None:
        """Give a worker no further requests; end it if it has none."""
        if worker.worker_id in self.result.retiring:
            return
        self.result.retiring.add(worker.worker_id)
        idle = self._is_idle(worker) or not worker.state.serves
        if idle and worker.worker_id not in self._circumstances.ending:
            self.result.steps.append(End(worker, reason))

    def _start_one(self, model: ServedModel, taken: Counter[str], old: list[WorkerInfo], failed: Failed) -> str:
        """Plan the start of one more worker than those on the nodes *taken*; return why there is none, or nothing.

        Where a start has *failed* is tried again only after all other places.
        """
        found = self._survey(PlacementRequest(model.model, served=model))
        sites = [each for each in found if isinstance(each, Site)]
        possible = [site for site in sites if site.room.fits or (model.pinned and site.room.fits_after_eviction)]
        free = [site for site in possible if site.room.place not in self._used]
        if free:
            failures = failed.places
            site = min(
                free,
                key=lambda each: (failures.get(each.room.place, 0), taken[each.node], len(each.room.evict), each.rank),
            )
            self._used.add(site.room.place)
            reason = f"{model.name} has {taken.total()} of {model.replicas or 1} workers as it is declared"
            self.result.steps.append(Start(model, site, reason))
            return ""
        if possible:
            return "another worker is being started on its device"
        in_the_way = self._in_the_way(model, old)
        if in_the_way:
            self.retire(in_the_way[0], f"there is no memory for {model.name} as it is declared now beside it")
            return "its worker of the earlier declaration ends first, because there is no memory for both"
        if model.pinned:
            self._hold_for(model, sites)
        reasons = [f"{each.node}: {each.reason}" for each in found if isinstance(each, Rejection)]
        reasons += [f"{site.node}: {_lack(site)}" for site in sites]
        return "; ".join(dict.fromkeys(reasons)) or "no node is registered"

    def _in_the_way(self, model: ServedModel, old: list[WorkerInfo]) -> list[WorkerInfo]:
        """Return the workers of the earlier declaration whose end alone makes room for one of the present one."""
        ids = {worker.worker_id for worker in old}
        for site in self._sites(PlacementRequest(model.model, served=model), ending=ids):
            ended = [*site.room.evict, *site.room.blockers]
            if ended and site.room.held_for is None and ids.issuperset(worker.worker_id for worker in ended):
                return self._idle_first(ended)
        return []

    def _spread(self, model: ServedModel, taken: Counter[str]) -> None:
        """Plan the start of a worker on a node that has two less than another one, which gives up one of its own then.

        Only where the file is: nothing is fetched for it.
        """
        ((crowded, most),) = taken.most_common(1)
        if most < 2:
            return
        sites = [
            site
            for site in self._sites(PlacementRequest(model.model, served=model))
            if site.model_present
            and site.room.fits
            and site.room.place not in self._used
            and taken[site.node] <= most - 2
        ]
        if sites:
            site = min(sites, key=lambda each: (taken[each.node], each.rank))
            self._used.add(site.room.place)
            self.result.steps.append(Start(model, site, f"{crowded} has {most} workers of {model.name}"))

    def _hold_for(self, model: ServedModel, sites: list[Site]) -> None:
        """Have workers in the way of a pinned model end once they are idle."""
        ripe = [site for site in sites if site.room.held_for is None and site.room.place not in self._used]
        if ripe:
            room = min(ripe, key=lambda site: (len(site.room.blockers), site.rank)).room
            self._used.add(room.place)
            self.result.claims[room.place] = model.name
            self.result.retiring.update(worker.worker_id for worker in (*room.blockers, *room.evict))

    def _end_surplus(self, model: ServedModel, current: list[WorkerInfo]) -> None:
        """Retire workers beyond the replicas, and on demand those that nobody has used for long enough.

        The fullest node gives up one first, but none that serves before enough others do.
        """
        if model.replicas:
            left = self._idle_first(current)
            while len(left) > model.replicas:
                crowd = Counter(worker.node for worker in left)
                worker = max(left, key=lambda each: crowd[each.node])
                if worker.state.serves and sum(each.state.serves for each in left) <= model.replicas:
                    break
                left.remove(worker)
                self.retire(worker, f"{model.name} has {model.replicas} replicas")
        elif isinstance(model.keep, float):
            for worker in current:
                if self._is_idle(worker) and self._fleet.occupancy.idle_for(worker, self._fleet.now) > model.keep:
                    self.retire(worker, f"nobody has used it for {model.keep:g} s")

    def _starting(self, model: ServedModel, own: list[WorkerInfo]) -> list[Place]:
        """List the devices on which a worker of a model is being started and is not there yet."""
        there = {(worker.node, worker.backend, worker.device) for worker in own if not worker.state.serves}
        started = self._circumstances.starting
        return [place for place, name in started if name == model.name and place not in there]

    def _lost(self, model: ServedModel) -> int:
        """Count the workers that ran where a hive fell silent a moment ago: it may be back at once."""
        hives = filter(None, map(self._fleet.registry.hive, self._circumstances.lost))
        return sum(worker.served == model.name for hive in hives for worker in hive.last_workers)

    def _survey(self, request: PlacementRequest, ending: Collection[str] = ()) -> list[Site | Rejection]:
        fleet = self._fleet
        request = replace(request, aliases=request.aliases | {request.model})
        return survey(fleet.registry, fleet.registry.hives(), request, fleet.occupancy, fleet.now, ending=ending)

    def _sites(self, request: PlacementRequest, ending: Collection[str] = ()) -> list[Site]:
        return [each for each in self._survey(request, ending) if isinstance(each, Site)]

    def _is_idle(self, worker: WorkerInfo) -> bool:
        return is_idle(self._fleet.registry, worker)

    def _idle_first(self, workers: list[WorkerInfo]) -> list[WorkerInfo]:
        return sorted(workers, key=lambda worker: (worker.state.serves, not self._is_idle(worker), worker.worker_id))


def _is_as_declared(worker: WorkerInfo, model: ServedModel) -> bool:
    """Return whether a worker has the settings of a declaration, stays if it is a replica, and is where that allows."""
    where = model.where
    return (
        worker.revision == model.revision
        and (not model.replicas or worker.keep == "always")
        and (not where.nodes or worker.node in where.nodes)
        and where.backend in (None, worker.backend)
        and (not where.devices or worker.device in where.devices)
    )


def _status(model: ServedModel, serving: int, earlier: int, wanted: int, loading: int, reason: str) -> Status:
    """Return how a model stands, by its workers that serve as declared, that serve as declared earlier, and load."""
    if serving >= max(wanted, 1):
        return Status("serving")
    if earlier:
        return Status("rolling out", reason)
    if loading:
        return Status("loading", reason)
    if not model.replicas and not reason:
        return Status("on demand")
    if not reason:
        return Status("starting")
    return Status("degraded" if serving else "missing", reason)


def _lack(site: Site) -> str:
    """Describe what a site lacks now."""
    if site.room.fits_after_eviction:
        names = ", ".join(sorted({worker.served or worker.model_ref for worker in site.room.evict}))
        return f"there is memory only after {names} has ended, which a model that is not kept always does not demand"
    return in_the_way(site.room)
