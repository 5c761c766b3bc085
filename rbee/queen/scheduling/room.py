"""Find the room for a model on one device: as it is, after idle workers have ended, or once those in use have.

Pure. What gives way is not pinned (`keep: always`) and idle: no worker that generates, and while requests wait for a
model, none of it that was loaded less than three of its load times ago. Of those the one is first for which
idle time x size / load time is largest, and as few end as make room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rbee.contracts.devices import Backend, Device
from rbee.contracts.workers import WorkerInfo, WorkerState
from rbee.queen.hive import Hive, Place
from rbee.queen.scheduling.occupancy import Occupancy, memory_of

_BEGINNING: Final = (WorkerState.STARTING, WorkerState.LOADING)
_ENDING: Final = (WorkerState.DRAINING, WorkerState.STOPPING)


@dataclass(frozen=True, slots=True)
class Room:
    """The room for a model on one device, of which `free` bytes are free and `need` are needed.

    `evict` can end at once, `blockers` must end too and are in use, or are asked for and have just been loaded.
    `held_for` is the model for which the device is held; `returning` says that enough memory is about to be free.
    """

    place: Place
    free: int
    need: int
    evict: tuple[WorkerInfo, ...] = ()
    blockers: tuple[WorkerInfo, ...] = ()
    held_for: str | None = None
    returning: bool = False

    @property
    def fits(self) -> bool:
        """Return whether the model fits as it is."""
        return self.held_for is None and self.need <= self.free

    @property
    def fits_after_eviction(self) -> bool:
        """Return whether it fits once what can end at once has ended."""
        return self.held_for is None and bool(self.evict) and not self.blockers


@dataclass(frozen=True, slots=True)
class Site:
    """A device that has room for the model, at once or later."""

    node: str
    backend: Backend
    device: int
    model_present: bool
    room: Room

    @property
    def rank(self) -> tuple[bool, int, str, int]:
        """Return what orders sites that fit: the model's file is there, most free memory, then by name."""
        return (not self.model_present, -self.room.free, self.node, self.device)


def find_room(
    hive: Hive,
    device: Device,
    name: str,
    need: int,
    *,
    occupancy: Occupancy,
    is_idle: Callable[[WorkerInfo], bool],
    is_retired: Callable[[WorkerInfo], bool],
    now: float,
) -> Room | None:
    """Return the room for *need* bytes of the model *name* on a device; None where no end of workers makes any.

    Args:
        is_idle: tells whether a worker serves and nobody uses it.
        is_retired: tells whether a worker gets no more requests, because it is to end.
    """
    place = (hive.node, device.backend, device.index)
    owner = occupancy.claims.get(place, name)
    held_for = None if owner == name else owner
    free = device.free_bytes - _promised(hive, device)
    if need <= free:
        return Room(place, free, need, held_for=held_for)
    if occupancy.starting.get(place, name) != name:
        return Room(place, free, need, held_for=occupancy.starting[place])
    missing = need - free - occupancy.returning(place, now)
    if missing <= 0:
        return Room(place, free, need, held_for=held_for, returning=True)
    held = [worker for worker in workers_on(hive, device) if memory_of(worker)]
    ending = [
        worker for worker in held if worker.state in _ENDING or (is_retired(worker) and occupancy.is_pinned(worker))
    ]
    movable = [worker for worker in held if worker in ending or not occupancy.is_pinned(worker)]
    ready = [
        worker
        for worker in movable
        if worker not in ending and is_idle(worker) and not occupancy.is_protected(worker, now)
    ]
    ready.sort(key=lambda worker: (-occupancy.cheapness(worker, now), worker.worker_id))
    if (evict := _fewest(ready, missing)) is not None:
        return Room(place, free, need, evict, held_for=held_for)
    blocking = [worker for worker in movable if worker not in ready]
    blocking.sort(key=lambda worker: (worker not in ending, occupancy.is_protected(worker, now), worker.worker_id))
    blockers = _fewest(blocking, missing - sum(map(memory_of, ready)))
    return None if blockers is None else Room(place, free, need, tuple(ready), blockers, held_for)


def _promised(hive: Hive, device: Device) -> int:
    """Return the bytes that loading workers will take of a device, where its free memory does not show that yet."""
    if device.budget_bytes is not None:
        return 0
    return sum(worker.need_bytes or 0 for worker in workers_on(hive, device) if worker.state in _BEGINNING)


def workers_on(hive: Hive, device: Device) -> Iterator[WorkerInfo]:
    """Yield the workers on a device."""
    for link in hive.workers.values():
        if (link.worker.backend, link.worker.device) == (device.backend, device.index):
            yield link.worker


def _fewest(workers: Sequence[WorkerInfo], missing: int) -> tuple[WorkerInfo, ...] | None:
    """Return the first of *workers* that together hold *missing* bytes, without those that are not needed for it."""
    chosen: list[WorkerInfo] = []
    for worker in workers:
        if missing <= 0:
            break
        chosen.append(worker)
        missing -= memory_of(worker)
    if missing > 0:
        return None
    for worker in reversed(chosen[:-1]):
        if missing + memory_of(worker) <= 0:
            chosen.remove(worker)
            missing += memory_of(worker)
    return tuple(chosen)
