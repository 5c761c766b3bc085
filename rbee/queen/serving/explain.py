"""Tell where a model runs or could, and why not elsewhere, from the same decisions that place requests. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from rbee.contracts.explain import (
    Evicted,
    Explanation,
    Explanations,
    PlannedModel,
    PlannedStep,
    ServedPlan,
    Verdict,
)
from rbee.contracts.references import shown_reference
from rbee.contracts.workers import WorkerInfo, WorkerState
from rbee.queen.scheduling.occupancy import memory_of, name_of
from rbee.queen.scheduling.placement import (
    AwaitRoom,
    AwaitWorker,
    Decision,
    Fleet,
    SpawnWorker,
    UseWorker,
    place,
)
from rbee.queen.scheduling.rejections import Rejection, in_the_way
from rbee.queen.scheduling.request import PlacementRequest
from rbee.queen.scheduling.room import Site
from rbee.queen.scheduling.sites import survey
from rbee.queen.serving.reconciler import End, Reconciliation, Start, Status


def explain(fleet: Fleet, request: PlacementRequest, status: Status | None = None) -> Explanations:
    """Return what every node and device of the fleet is for a model; *status* is how a declared one stands."""
    names = {request.model, *request.aliases} if request.served is None else {request.served.name}
    registry = fleet.registry
    running = [_running(filed.link.worker) for filed in registry.index.of(sorted(names))]
    found = survey(registry, registry.hives(), request, fleet.occupancy, fleet.now)
    others = [_site(fleet, each) if isinstance(each, Site) else _rejected(each) for each in found]
    order: list[Verdict] = ["serves", "loading", "fits", "fits_after_eviction", "waits", "impossible"]
    candidates = sorted([*running, *others], key=lambda each: (order.index(each.verdict), each.node, each.device or 0))
    return Explanations(
        model=request.name,
        reference=shown_reference(request.model),
        next=_next(place(fleet, request)) + (f" ({status.state}: {status.reason})" if status and status.reason else ""),
        candidates=candidates,
    )


def planned(fleet: Fleet, found: Reconciliation) -> ServedPlan:
    """Return what would be done, as it is shown."""
    steps = [_step(fleet, step) for step in found.steps]
    ended = {step.worker_id for step in steps}
    steps += [
        _of_worker("retire", link.worker, "its requests end first; it gets no more")
        for worker_id in sorted(found.retiring - ended)
        if (link := fleet.registry.worker(worker_id)) is not None
    ]
    models = [
        PlannedModel(name=name, state=status.state, reason=status.reason) for name, status in found.status.items()
    ]
    return ServedPlan(steps=steps, models=models)


def _running(worker: WorkerInfo) -> Explanation:
    loading = worker.state in (WorkerState.STARTING, WorkerState.LOADING)
    verdict: Verdict = "serves" if worker.state.serves else "loading" if loading else "impossible"
    used = f"{worker.slots_total - worker.slots_available} of {worker.slots_total} slots in use"
    return Explanation(
        node=worker.node,
        backend=worker.backend,
        device=worker.device,
        verdict=verdict,
        reason=used if worker.state.serves else f"its worker is {worker.state.value}",
        worker_id=worker.worker_id,
        state=worker.state,
        need_bytes=memory_of(worker) or None,
    )


def _site(fleet: Fleet, site: Site) -> Explanation:
    room = site.room
    verdict: Verdict = "waits"
    if room.fits:
        verdict, reason = "fits", "there is memory for it" if room.need else "what it needs is not known yet"
    elif room.fits_after_eviction:
        verdict, names = "fits_after_eviction", ", ".join(shown_reference(name_of(one)) for one in room.evict)
        reason = f"it fits once {names} has ended, which nobody uses"
    else:
        reason = in_the_way(room)
    if not site.model_present:
        reason += "; its file is fetched first"
    return Explanation(
        node=site.node,
        backend=site.backend,
        device=site.device,
        verdict=verdict,
        reason=reason,
        need_bytes=room.need or None,
        free_bytes=room.free,
        model_present=site.model_present,
        evict=_evicted(fleet, room.evict),
    )


def _rejected(rejection: Rejection) -> Explanation:
    return Explanation(node=rejection.node, verdict="impossible", reason=rejection.reason)


def _evicted(fleet: Fleet, workers: Iterable[WorkerInfo]) -> list[Evicted]:
    return [
        Evicted(
            worker_id=worker.worker_id,
            name=name_of(worker),
            memory_bytes=memory_of(worker),
            idle_s=round(fleet.occupancy.idle_for(worker, fleet.now), 1),
        )
        for worker in workers
    ]


def _next(decision: Decision) -> str:
    match decision:
        case UseWorker(node=node, link=link, free=free):
            return f"a request goes to {link.worker.worker_id} on {node}, which has {free} free slots"
        case AwaitWorker(node=node, link=link):
            return f"a request waits for {link.worker.worker_id} on {node}, which is loading"
        case SpawnWorker(node=node, backend=backend, evict=evict):
            after = f" once {', '.join(evict)} has ended" if evict else ""
            return f"a request starts a worker on {node} ({backend.value}){after}"
        case AwaitRoom(site=site):
            return f"a request waits for memory on {site.node}: {in_the_way(site.room)}"
        case refusal:
            return f"a request is refused: {refusal.message.rstrip('.')}"


def _step(fleet: Fleet, step: Start | End) -> PlannedStep:
    if isinstance(step, End):
        return _of_worker("end", step.worker, step.reason)
    site = step.site
    return PlannedStep(
        action="start",
        model=step.model.name,
        node=site.node,
        backend=site.backend,
        device=site.device,
        evict=_evicted(fleet, site.room.evict),
        reason=step.reason,
    )


def _of_worker(action: str, worker: WorkerInfo, reason: str) -> PlannedStep:
    return PlannedStep.model_validate(
        {
            "action": action,
            "model": name_of(worker),
            "node": worker.node,
            "backend": worker.backend,
            "device": worker.device,
            "worker_id": worker.worker_id,
            "reason": reason,
        }
    )
