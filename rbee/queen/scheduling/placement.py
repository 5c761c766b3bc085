"""Decide where a task runs.

Pure: the fleet as known and the request go in; the worker to use, the site for a new one, or a refusal comes out.
The caller performs it. A node or device that is passed over has its reason in the refusal (`rejections`).

Rules:
* a worker matches by model, backend and, where one is requested, device; while a matching worker exists,
  free, busy or loading, no second one is started;
* a request without a backend means the best one that each node has; if that cannot take the model, or its driver is
  broken, the next is not tried;
* no worker is started for a model, or on a device, that its hive has in quarantine; one that runs is used;
* among matches with a free slot the one that holds the conversation comes first, then one that has read much of the
  prompt, both unless it is much busier than the idlest; then the one with the most free slots; then the one that holds
  the fewest conversations;
* among sites the one that has the model's file, then the one with the most free memory; names break ties, so that
  equal fleets give equal answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from rbee.contracts.devices import Backend, Device
from rbee.contracts.version import is_compatible
from rbee.contracts.workers import Quarantine, WorkerAccess, WorkerState
from rbee.queen.registry import Hive
from rbee.queen.scheduling import rejections
from rbee.queen.scheduling.prefix_index import PrefixHashes, PrefixIndex
from rbee.queen.scheduling.rejections import Refusal, Rejection

MEMORY_FACTOR = 1.2
MIN_PREFIX_HASHES = 8  # a beginning of some 250 tokens: what is shorter is read faster than a busier worker answers
_TOLERANCE_DIVISOR = 2  # by a half of its slots a worker that has read the prompt may be busier than the idlest


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """The model to run, and where if that matters. `model` is any spelling, `aliases` others that mean the same.

    `prefix_hashes` are those of its prompt (`prefix_index`), `client` is the id of whose request it is. Without
    `may_fetch` a worker is started only where the model's file is.
    """

    model: str
    node: str | None = None
    backend: Backend | None = None
    device: int | None = None
    aliases: frozenset[str] = frozenset()
    prefix_hashes: PrefixHashes = ()
    client: str = ""
    may_fetch: bool = True

    def matches(self, reference: str) -> bool:
        """Return whether *reference* is the requested model."""
        return reference == self.model or reference in self.aliases


@dataclass(frozen=True, slots=True)
class Fleet:
    """What placement looks at. `in_flight` counts this queen's own requests by worker id."""

    hives: tuple[Hive, ...]
    version: str
    in_flight: Mapping[str, int] = field(default_factory=dict)
    prefixes: PrefixIndex = field(default_factory=PrefixIndex)


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
    """Start a worker here; `device` None leaves the choice to the hive, which sees its memory as it is now."""

    node: str
    backend: Backend
    device: int | None
    model_present: bool


class _Candidate(NamedTuple):
    """A worker that serves; the smallest is chosen: most free slots, fewest conversations, then by node and id."""

    minus_free: int
    conversations: int
    node: str
    worker_id: str
    running: int
    link: WorkerAccess


Decision = UseWorker | AwaitWorker | SpawnWorker | Refusal


def place(fleet: Fleet, request: PlacementRequest) -> Decision:
    """Choose where *request* runs."""
    hives = [hive for hive in fleet.hives if request.node is None or hive.node == request.node]
    if not hives:
        return rejections.no_node(request.node)
    rejected: list[Rejection] = []
    eligible: list[tuple[Hive, Backend]] = []
    for hive in hives:
        found = _eligible_backend(hive, request, fleet.version)
        if isinstance(found, Rejection):
            rejected.append(found)
        else:
            eligible.append((hive, found))

    serving, loading = _matching(eligible, request, fleet)
    if serving:
        return _best_use(serving, request, fleet.prefixes)
    if loading:
        return min(loading, key=lambda wait: (wait.node, wait.link.worker.worker_id))
    return _choose_spawn_site(eligible, request, model_bytes(fleet.hives, request), rejected)


def model_bytes(hives: Iterable[Hive], request: PlacementRequest) -> int | None:
    """Return the size of the requested model's file if any hive has it in its catalog."""
    return next((entry.size_bytes for hive in hives for entry in hive.models if request.matches(entry.reference)), None)


def _eligible_backend(hive: Hive, request: PlacementRequest, version: str) -> Backend | Rejection:
    """Return the backend that *hive* would use, or why it cannot be used at all."""
    if not hive.connected or hive.version is None:
        return rejections.unreachable(hive)
    if not is_compatible(version, hive.version):
        return rejections.other_version(hive, version)
    if hive.closing:
        return rejections.closing(hive)
    available = hive.detection.backends
    backend = request.backend or hive.detection.best
    if backend is None or backend not in available:
        return rejections.backend_missing(hive, backend)
    if request.device is None:
        return backend
    indices = [device.index for device in _devices(hive, backend)]
    if request.device not in indices:
        return rejections.device_missing(hive, backend, request.device, indices)
    return backend


def _matching(
    eligible: Iterable[tuple[Hive, Backend]], request: PlacementRequest, fleet: Fleet
) -> tuple[list[_Candidate], list[AwaitWorker]]:
    """Find the workers that fit, those that serve and those that will.

    This runs for every request over the whole fleet, so it creates no object that it need not.
    """
    names = {request.model, *request.aliases}
    in_flight, held = fleet.in_flight, fleet.prefixes.conversations()
    serving: list[_Candidate] = []
    loading: list[AwaitWorker] = []
    device = request.device
    new = tuple.__new__  # half the time of calling the class
    for hive, backend in eligible:
        node = hive.node
        for worker_id, link in hive.workers.items():
            worker = link.worker
            if (
                worker.model_ref not in names
                or worker.backend is not backend
                or (device is not None and worker.device != device)
            ):
                continue
            state = worker.state
            if state is WorkerState.IDLE or state is WorkerState.BUSY:
                # As the hive reports and as our own requests suggest; the lower is nearer to the truth.
                total = worker.slots_total
                free = total - in_flight.get(worker_id, 0)
                free = min(free, worker.slots_available)
                free = max(free, 0)
                conversations = len(held[worker_id]) if worker_id in held else 0
                serving.append(new(_Candidate, (-free, conversations, node, worker_id, total - free, link)))
            elif state is WorkerState.STARTING or state is WorkerState.LOADING:
                loading.append(AwaitWorker(node, link))
    return serving, loading


def _best_use(serving: list[_Candidate], request: PlacementRequest, prefixes: PrefixIndex) -> UseWorker:
    """Choose among workers that serve.

    A worker that has read the prompt may have some more requests than the idlest, and hold some more conversations
    than another, but not so many that one prompt which everybody begins with sends everybody to one worker.
    """
    best = min(serving)
    if request.prefix_hashes and best.minus_free:
        free = [one for one in serving if one.minus_free]
        least = min([one.running for one in free])
        sticky = prefixes.sticky_workers(request.prefix_hashes)
        own = [one for one in free if one.worker_id in sticky and one.running - least <= _load_tolerance(one)]
        if own:
            best = min(own)
        else:
            lengths = prefixes.match_lengths(request.prefix_hashes)
            fewest = min([one.conversations for one in free])
            matching = [
                (-lengths[one.worker_id], one)
                for one in free
                if one.worker_id in lengths
                and lengths[one.worker_id] >= MIN_PREFIX_HASHES
                and one.running - least <= _load_tolerance(one)
                and one.conversations - fewest <= _load_tolerance(one)
            ]
            best = min(matching)[1] if matching else best
    return UseWorker(best.node, best.link, -best.minus_free)


def _load_tolerance(candidate: _Candidate) -> int:
    """Return how many more requests or conversations than others a worker may have for what it has read."""
    return max(1, candidate.link.worker.slots_total // _TOLERANCE_DIVISOR)


def _choose_spawn_site(
    eligible: list[tuple[Hive, Backend]], request: PlacementRequest, size: int | None, rejected: list[Rejection]
) -> SpawnWorker | Refusal:
    need = 0 if size is None else int(MEMORY_FACTOR * size)
    sites: list[tuple[tuple[bool, int, str], SpawnWorker]] = []
    for hive, backend in eligible:
        devices = [d for d in _devices(hive, backend) if request.device is None or d.index == request.device]
        quarantine = _quarantine(hive, request, devices)
        if quarantine is not None:
            rejected.append(rejections.quarantined(hive, quarantine))
            continue
        devices = [device for device in devices if not _device_quarantine(hive, device)]
        best = max(devices, key=lambda device: device.free_bytes)
        if best.free_bytes < need:
            rejected.append(rejections.insufficient_memory(hive, best, need))
            continue
        present = any(request.matches(entry.reference) and entry.problem is None for entry in hive.models)
        if not present and not request.may_fetch:
            rejected.append(rejections.model_missing(hive))
            continue
        sites.append(
            ((not present, -best.free_bytes, hive.node), SpawnWorker(hive.node, backend, request.device, present))
        )
    if sites:
        return min(sites, key=lambda scored: scored[0])[1]
    return rejections.refused(request.model, rejected)


def _quarantine(hive: Hive, request: PlacementRequest, devices: list[Device]) -> Quarantine | None:
    """Return what keeps the requested model from *devices*: its own quarantine, or that of all of them."""
    own = next((each for each in hive.quarantined if each.model_ref and request.matches(each.model_ref)), None)
    if own is not None:
        return own
    quarantined = [_device_quarantine(hive, device) for device in devices]
    return quarantined[0] if all(quarantined) else None


def _device_quarantine(hive: Hive, device: Device) -> Quarantine | None:
    at = (device.backend, device.index)
    return next((each for each in hive.quarantined if (each.backend, each.device) == at), None)


def _devices(hive: Hive, backend: Backend) -> list[Device]:
    return [device for device in hive.detection.devices if device.backend is backend]
