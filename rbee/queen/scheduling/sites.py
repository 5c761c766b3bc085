"""Find where a worker for a model may be started: the devices that have room, now or later, and why others have not.

Pure. Placement starts a worker for a request at one of these sites, the reconciler one for a declaration, and
`explain` shows them all.

Rules:
* a request without a backend means the best one that each node has; if that cannot take the model, or its driver is
  broken, the next is not tried;
* no worker is started for a model, or on a device, that its hive has in quarantine;
* none is started on a device that is yielded to another program.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from rbee.contracts.devices import Backend, Device
from rbee.contracts.version import is_compatible
from rbee.contracts.workers import Quarantine, WorkerInfo, WorkerState
from rbee.queen.hive import Hive
from rbee.queen.registry import Registry
from rbee.queen.scheduling import rejections
from rbee.queen.scheduling.occupancy import Occupancy
from rbee.queen.scheduling.rejections import Rejection
from rbee.queen.scheduling.request import PlacementRequest
from rbee.queen.scheduling.room import Site, find_room

MEMORY_FACTOR = 1.2


def survey(
    registry: Registry,
    hives: Iterable[Hive],
    request: PlacementRequest,
    occupancy: Occupancy,
    now: float,
    *,
    ending: Collection[str] = (),
) -> list[Site | Rejection]:
    """Return the sites for a worker on *hives*; for each of these that has none, why. Without hives it is empty.

    Args:
        ending: ids of workers of which it is to be taken that they get no more requests.
    """
    size = _model_bytes(registry, request)
    needs = _Needs(occupancy, registry, now, size, ending)
    found: list[Site | Rejection] = []
    for hive in hives:
        if not request.allows_node(hive.node):
            continue
        backend = _eligible_backend(hive, request, registry.version)
        if isinstance(backend, Rejection):
            found.append(backend)
        else:
            found += _sites_on(hive, backend, request, needs)
    found += [rejections.no_such_node(node) for node in request.nodes if registry.hive(node) is None]
    if not found and request.node is not None:
        found.append(rejections.not_allowed(request.node, request.nodes))
    return found


def _model_bytes(registry: Registry, request: PlacementRequest) -> int | None:
    """Return the size of the requested model's file if any hive has it in its catalog."""
    names = sorted({request.model, *request.aliases})
    return next((entry.size_bytes for name in names for _, entry in registry.models.entries(name)), None)


def is_idle(registry: Registry, worker: WorkerInfo) -> bool:
    """Return whether a worker serves and nobody uses it."""
    unused = worker.state is WorkerState.IDLE and worker.slots_available == worker.slots_total
    return unused and not registry.index.in_flight(worker.worker_id)


def devices_of(hive: Hive, backend: Backend) -> list[Device]:
    """List the devices of a backend."""
    return [device for device in hive.detection.devices if device.backend is backend]


@dataclass(frozen=True, slots=True)
class _Needs:
    """What the room on a device depends on: how memory is used, and the size of the model's file, if that is known."""

    occupancy: Occupancy
    registry: Registry
    now: float
    size: int | None
    ending: Collection[str] = ()

    def is_retired(self, worker: WorkerInfo) -> bool:
        """Return whether a worker gets no more requests."""
        return worker.worker_id in self.ending or self.registry.index.is_retired(worker.worker_id)

    def bytes(self, request: PlacementRequest, backend: Backend) -> int:
        """Return what the model needs, as a hive has told, else by the size of its file."""
        known = self.occupancy.need(request.name, request.revision, backend)
        return known if known is not None else int(MEMORY_FACTOR * (self.size or 0))


def _sites_on(hive: Hive, backend: Backend, request: PlacementRequest, needs: _Needs) -> Iterator[Site | Rejection]:
    """Yield the sites on one hive, or why there is none."""
    allowed = [device for device in devices_of(hive, backend) if request.allows_device(device.index)]
    devices = [device for device in allowed if not hive.yielded_at(backend, device.index)]
    if not devices:
        yield rejections.yielded(hive, filter(None, (hive.yielded_at(backend, device.index) for device in allowed)))
        return
    quarantine = _quarantine(hive, request, devices)
    if quarantine is not None:
        yield rejections.quarantined(hive, quarantine)
        return
    present = any(request.matches(entry.reference) and entry.problem is None for entry in hive.models)
    devices = [device for device in devices if not _device_quarantine(hive, device)]
    need = needs.bytes(request, backend)
    find = partial(
        find_room,
        occupancy=needs.occupancy,
        is_idle=partial(is_idle, needs.registry),
        is_retired=needs.is_retired,
        now=needs.now,
    )
    rooms = [(device, find(hive, device, request.name, need)) for device in devices]
    sites = [Site(hive.node, backend, device.index, present, room) for device, room in rooms if room is not None]
    if not sites:
        yield rejections.insufficient_memory(hive, max(devices, key=lambda device: device.free_bytes), need)
    elif not present and not request.may_fetch:
        yield rejections.model_missing(hive)
    else:
        yield from sites


def _eligible_backend(hive: Hive, request: PlacementRequest, version: str) -> Backend | Rejection:
    """Return the backend that *hive* would use, or why it cannot be used at all."""
    if not hive.connected or hive.version is None:
        return rejections.unreachable(hive)
    if not is_compatible(version, hive.version):
        return rejections.other_version(hive, version)
    if hive.closing:
        return rejections.closing(hive)
    available = hive.detection.backends
    backend = request.wanted_backend or hive.detection.best
    if backend is None or backend not in available:
        return rejections.backend_missing(hive, backend)
    indices = [device.index for device in devices_of(hive, backend)]
    if not any(map(request.allows_device, indices)):
        return rejections.device_missing(hive, backend, request.devices, indices)
    return backend


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
