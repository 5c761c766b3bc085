"""Decide where a task runs.

Pure: the fleet as known and the request go in; the worker to use, the site for a new one, or a refusal comes out.
The caller performs it. A node or device that is passed over has its reason in the refusal (`rejections`).

Rules:
* a worker matches by model, backend and, where one is requested, device; while a matching worker exists,
  free, busy or loading, no second one is started;
* a declared model has workers of its own, with its own settings; one that is to end gets no request any more;
* only where none serves or loads the model are the nodes looked at for a new one, all of them: what a request costs
  that has a worker does not depend on how many there are;
* among matches with a free slot the one that holds the conversation comes first, then one that has read much of the
  prompt, both unless it is much busier than the idlest; then the one with the most free slots; then the one that holds
  the fewest conversations;
* among sites (`sites`) with room the one that has the model's file, then the one with the most free memory; then one
  where idle workers give way, as few as possible; a request waits where it must wait for workers in use. Names break
  ties, so that equal fleets give equal answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rbee.contracts.devices import Backend
from rbee.contracts.workers import WorkerAccess
from rbee.queen.hive import Hive
from rbee.queen.registry import Registry
from rbee.queen.scheduling import rejections
from rbee.queen.scheduling.occupancy import Occupancy
from rbee.queen.scheduling.prefix_index import PrefixIndex
from rbee.queen.scheduling.rejections import Refusal, Rejection
from rbee.queen.scheduling.request import PlacementRequest
from rbee.queen.scheduling.room import Site
from rbee.queen.scheduling.sites import devices_of, survey
from rbee.queen.worker_index import Candidate, Candidates

MIN_PREFIX_HASHES = 8  # a beginning of some 250 tokens: what is shorter is read faster than a busier worker answers
_TOLERANCE_DIVISOR = 2  # by a half of its slots a worker that has read the prompt may be busier than the idlest


@dataclass(frozen=True, slots=True)
class Fleet:
    """What placement looks at: hives and workers, with this queen's own requests there, and what workers have read.

    `occupancy` is what is known of the use of memory; `now` is a time of its clock, in seconds.
    """

    registry: Registry
    prefixes: PrefixIndex = field(default_factory=PrefixIndex)
    occupancy: Occupancy = field(default_factory=Occupancy)
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class UseWorker:
    """Send the request to this worker; `free` is the number of slots it seems to have left."""

    node: str
    link: WorkerAccess
    free: int


@dataclass(frozen=True, slots=True)
class AwaitWorker:
    """A matching worker is loading: wait for it."""

    node: str
    link: WorkerAccess


@dataclass(frozen=True, slots=True)
class SpawnWorker:
    """Start a worker here; `device` None leaves the choice to the hive, which sees its memory as it is now.

    The idle workers `evict`, by id, must end first, to make room.
    """

    node: str
    backend: Backend
    device: int | None
    model_present: bool
    evict: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AwaitRoom:
    """There will be room at `site` once workers that are in use have ended; without it, this is the `refusal`."""

    site: Site
    refusal: Refusal


Decision = UseWorker | AwaitWorker | SpawnWorker | AwaitRoom | Refusal


def place(fleet: Fleet, request: PlacementRequest) -> Decision:
    """Choose where *request* runs."""
    registry = fleet.registry
    asked = None if request.node is None else registry.hive(request.node)
    if not registry or (asked is None and request.node is not None):
        return rejections.no_node(request.node)
    candidates = _candidates(registry, request)
    serving = [group for group in candidates if group.serving]
    if serving:
        return _best_use(serving, registry, request, fleet.prefixes)
    if candidates:
        first = min(group.loading[0] for group in candidates)
        return AwaitWorker(first.node, first.link)
    return _new_worker(fleet, registry.hives() if asked is None else [asked], request)


def _candidates(registry: Registry, request: PlacementRequest) -> list[Candidates]:
    """Find the workers that fit, those that serve and those that will; a group for each spelling of the model."""
    index = registry.index
    names = {request.model, *request.aliases} if request.served is None else {request.served.name}
    if request.node is None and request.device is None:
        return index.candidates(names, request.wanted_backend)
    nodes = {filed.node for filed in index.of(names)} if request.node is None else {request.node}
    worker_ids = [
        worker_id
        for hive in map(registry.hive, nodes)
        if hive is not None
        for worker_id, link in hive.workers.items()
        if request.device is None or any(d.index == request.device for d in devices_of(hive, link.worker.backend))
    ]
    return index.candidates_among(worker_ids, names, request.wanted_backend, request.device)


def _best_use(
    serving: list[Candidates], registry: Registry, request: PlacementRequest, prefixes: PrefixIndex
) -> UseWorker:
    """Choose among workers that serve.

    A worker that has read the prompt may have some more requests than the idlest, and hold some more conversations
    than another, but not so many that one prompt which everybody begins with sends everybody to one worker.
    """
    best = min(group.serving[0] for group in serving)
    if request.prefix_hashes and best.minus_free:
        free = [group for group in serving if group.serving[0].minus_free]
        least = min(group.least_running for group in free)
        sticky = _free(serving, registry, prefixes.sticky_workers(request.prefix_hashes))
        own = [one for one in sticky if one.running - least <= _load_tolerance(one)]
        if own:
            best = min(own)
        else:
            lengths = prefixes.match_lengths(request.prefix_hashes)
            long = [worker_id for worker_id, length in lengths.items() if length >= MIN_PREFIX_HASHES]
            fewest = min(group.fewest_conversations for group in free)
            matching = [
                (-lengths[one.worker_id], one)
                for one in _free(serving, registry, long)
                if one.running - least <= _load_tolerance(one) and one.conversations - fewest <= _load_tolerance(one)
            ]
            best = min(matching)[1] if matching else best
    return UseWorker(best.node, best.link, -best.minus_free)


def _free(serving: list[Candidates], registry: Registry, worker_ids: Iterable[str]) -> list[Candidate]:
    """Return those of some workers that are among *serving* and have a free slot."""
    filed = filter(None, map(registry.index.find, worker_ids))
    choices = [one.choice for one in filed if isinstance(one.choice, Candidate) and one.choice.minus_free]
    return [choice for choice in choices if any(choice in group for group in serving)]


def _load_tolerance(candidate: Candidate) -> int:
    """Return how many more requests or conversations than others a worker may have for what it has read."""
    return max(1, candidate.link.worker.slots_total // _TOLERANCE_DIVISOR)


def _new_worker(fleet: Fleet, hives: Iterable[Hive], request: PlacementRequest) -> SpawnWorker | AwaitRoom | Refusal:
    """Choose a site for a new worker on one of *hives*, or tell why there is none."""
    found = survey(fleet.registry, hives, request, fleet.occupancy, fleet.now)
    sites = [each for each in found if isinstance(each, Site)]
    rejected = [each for each in found if isinstance(each, Rejection)]
    if free := [site for site in sites if site.room.fits]:
        best = min(free, key=lambda site: site.rank)
        # A hive that may choose sees its memory as it is now.
        of_hive = [site for site in free if site.node == best.node]
        any_device = len(of_hive) == len(devices_of_site(fleet.registry, best))
        device = request.device if any_device else best.device
        return SpawnWorker(best.node, best.backend, device, best.model_present)
    if evictable := [site for site in sites if site.room.fits_after_eviction]:
        best = min(evictable, key=lambda site: (not site.model_present, len(site.room.evict), site.rank))
        evict = tuple(worker.worker_id for worker in best.room.evict)
        return SpawnWorker(best.node, best.backend, best.device, best.model_present, evict)
    if sites:
        best = min(sites, key=lambda site: (not site.model_present, len(site.room.blockers), site.rank))
        return AwaitRoom(best, rejections.refused(request.model, [*rejected, *map(rejections.occupied, sites)]))
    return rejections.refused(request.model, rejected)


def devices_of_site(registry: Registry, site: Site) -> list[int]:
    """List the devices of the backend that the hive of a site has."""
    hive = registry.hive(site.node)
    return [] if hive is None else [device.index for device in devices_of(hive, site.backend)]
