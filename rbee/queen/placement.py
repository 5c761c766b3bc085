"""Decide where a task runs.

Pure: the fleet as known and the wish go in; the worker to use, the place for a new one, or a refusal comes out.
The caller performs it. A node or device that is passed over has its reason in the refusal (`refusals`).

Rules:
* a worker matches by model, backend and, where one was asked for, device; while a matching worker exists,
  free, busy or loading, no second one is started;
* a wish without a backend means the best one that each node has; if that cannot take the model, or its driver is
  broken, the next is not tried;
* no worker is started for a model, or on a device, that its hive has in quarantine; one that lives is used;
* among matches with a free slot the one that holds the conversation comes first, then one that has read much of the
  prompt, both unless it is much busier than the idlest; then the one with the most free slots; then the one that holds
  the fewest conversations;
* among places the one that has the model's file, then the one with the most free memory; names break ties, so that
  equal fleets give equal answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rbee.contracts.devices import Backend, Device
from rbee.contracts.workers import Quarantine, WorkerAccess, WorkerState
from rbee.queen import refusals
from rbee.queen.prefixes import Marks, Prefixes
from rbee.queen.refusals import Refusal, Rejection
from rbee.queen.registry import Hive

MEMORY_FACTOR = 1.2
DEEP_MARKS = 8  # a beginning of some 250 tokens: what is shorter is read faster than a busier worker answers
_MORE_OF_SLOTS = 2  # by a half of its slots a worker that has read the prompt may be busier than the idlest


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to run, and where if that matters. `model` is any spelling, `same_as` others that mean the same.

    `marks` are those of its prompt (`prefixes`).
    """

    model: str
    node: str | None = None
    backend: Backend | None = None
    device: int | None = None
    same_as: frozenset[str] = frozenset()
    marks: Marks = ()

    def means(self, reference: str) -> bool:
        """Tell whether *reference* is the wished model."""
        return reference == self.model or reference in self.same_as


@dataclass(frozen=True, slots=True)
class Fleet:
    """What placement looks at. `in_flight` counts this queen's own requests by worker id."""

    hives: tuple[Hive, ...]
    version: str
    in_flight: Mapping[str, int] = field(default_factory=dict)
    prefixes: Prefixes = field(default_factory=Prefixes)


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


_Candidate = tuple[int, int, str, str, int, WorkerAccess]
"""A worker that serves, in the order of choice: minus its free slots, conversations that it holds, node, id; then what
runs there, and itself."""

Decision = UseWorker | AwaitWorker | SpawnWorker | Refusal


def place(fleet: Fleet, wish: Wish) -> Decision:
    """Choose where *wish* runs."""
    hives = [hive for hive in fleet.hives if wish.node is None or hive.node == wish.node]
    if not hives:
        return refusals.nobody(wish.node)
    rejected: list[Rejection] = []
    able: list[tuple[Hive, Backend]] = []
    for hive in hives:
        found = _able(hive, wish, fleet.version)
        if isinstance(found, Rejection):
            rejected.append(found)
        else:
            able.append((hive, found))

    serving, loading = _matching(able, wish, fleet)
    if serving:
        return _best_use(serving, wish, fleet.prefixes)
    if loading:
        return min(loading, key=lambda wait: (wait.node, wait.link.worker.worker_id))
    return _new_place(able, wish, model_bytes(fleet.hives, wish), rejected)


def model_bytes(hives: Iterable[Hive], wish: Wish) -> int | None:
    """Give the size of the wished model's file if any hive has it in its catalogue."""
    return next((entry.size_bytes for hive in hives for entry in hive.models if wish.means(entry.reference)), None)


def compatible(ours: str, theirs: str) -> bool:
    """Tell whether two versions work together: the same major and minor."""
    return ours.split(".")[:2] == theirs.split(".")[:2]


def _able(hive: Hive, wish: Wish, version: str) -> Backend | Rejection:
    """Give the backend that *hive* would use, or why it cannot be used at all."""
    if not hive.connected or hive.version is None:
        return refusals.unreachable(hive)
    if not compatible(version, hive.version):
        return refusals.other_version(hive, version)
    if hive.closing:
        return refusals.closing(hive)
    there = hive.detection.backends
    backend = wish.backend or hive.detection.best
    if backend is None or backend not in there:
        return refusals.backend_missing(hive, backend)
    if wish.device is None:
        return backend
    indices = [device.index for device in _devices(hive, backend)]
    if wish.device not in indices:
        return refusals.device_missing(hive, backend, wish.device, indices)
    return backend


def _matching(
    able: Iterable[tuple[Hive, Backend]], wish: Wish, fleet: Fleet
) -> tuple[list[_Candidate], list[AwaitWorker]]:
    """Find the workers that fit, those that serve and those that will.

    It is done for every request over the whole fleet, so it makes no object that it need not.
    """
    names = {wish.model, *wish.same_as}
    in_flight, held = fleet.in_flight, fleet.prefixes.held()
    serving: list[_Candidate] = []
    loading: list[AwaitWorker] = []
    device = wish.device
    for hive, backend in able:
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
                # As the hive says and as our own requests suggest; the lower is nearer to the truth.
                total = worker.slots_total
                free = total - in_flight.get(worker_id, 0)
                free = min(free, worker.slots_available)
                free = max(free, 0)
                conversations = len(held[worker_id]) if worker_id in held else 0
                serving.append((-free, conversations, node, worker_id, total - free, link))
            elif state is WorkerState.STARTING or state is WorkerState.LOADING:
                loading.append(AwaitWorker(node, link))
    return serving, loading


def _best_use(serving: list[_Candidate], wish: Wish, prefixes: Prefixes) -> UseWorker:
    """Choose among workers that serve.

    A worker that has read the prompt may have some more requests than the idlest, and hold some more conversations
    than another, but not so many that one prompt which everybody begins with sends everybody to one worker.
    """
    best = min(serving)
    if wish.marks and best[0]:
        free = [candidate for candidate in serving if candidate[0]]
        least = min([one[4] for one in free])
        continued = prefixes.continued(wish.marks)
        own = [one for one in free if one[3] in continued and one[4] - least <= _more(one)]
        if own:
            best = min(own)
        else:
            depths, fewest = prefixes.depths(wish.marks), min([one[1] for one in free])
            deep = [
                (-depths[one[3]], one)
                for one in free
                if one[3] in depths
                and depths[one[3]] >= DEEP_MARKS
                and one[4] - least <= _more(one)
                and one[1] - fewest <= _more(one)
            ]
            best = min(deep)[1] if deep else best
    return UseWorker(best[2], best[5], -best[0])


def _more(candidate: _Candidate) -> int:
    """Give how many more requests or conversations than others a worker may have for what it has read."""
    return max(1, candidate[5].worker.slots_total // _MORE_OF_SLOTS)


def _new_place(
    able: list[tuple[Hive, Backend]], wish: Wish, size: int | None, rejected: list[Rejection]
) -> SpawnWorker | Refusal:
    need = 0 if size is None else int(MEMORY_FACTOR * size)
    places: list[tuple[tuple[bool, int, str], SpawnWorker]] = []
    for hive, backend in able:
        devices = [d for d in _devices(hive, backend) if wish.device is None or d.index == wish.device]
        quarantine = _quarantine(hive, wish, devices)
        if quarantine is not None:
            rejected.append(refusals.quarantined(hive, quarantine))
            continue
        devices = [device for device in devices if not _barred(hive, device)]
        best = max(devices, key=lambda device: device.free_bytes)
        if best.free_bytes < need:
            rejected.append(refusals.too_little(hive, best, need))
            continue
        present = any(wish.means(entry.reference) and entry.problem is None for entry in hive.models)
        places.append(
            ((not present, -best.free_bytes, hive.node), SpawnWorker(hive.node, backend, wish.device, present))
        )
    if places:
        return min(places, key=lambda scored: scored[0])[1]
    return refusals.refused(wish.model, rejected)


def _quarantine(hive: Hive, wish: Wish, devices: list[Device]) -> Quarantine | None:
    """Find what keeps the wished model from *devices*: its own quarantine, or that of all of them."""
    own = next((each for each in hive.quarantined if each.model_ref and wish.means(each.model_ref)), None)
    if own is not None:
        return own
    barred = [_barred(hive, device) for device in devices]
    return barred[0] if all(barred) else None


def _barred(hive: Hive, device: Device) -> Quarantine | None:
    at = (device.backend, device.index)
    return next((each for each in hive.quarantined if (each.backend, each.device) == at), None)


def _devices(hive: Hive, backend: Backend) -> list[Device]:
    return [device for device in hive.detection.devices if device.backend is backend]
