"""Know how the fleet's memory is used, beside what hives report: what takes how much, for how long, and who waits.

Pure: what happens goes in with its time, in seconds of one steady clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from rbee.contracts.devices import Backend
from rbee.contracts.workers import WorkerInfo, WorkerState
from rbee.queen.hive import Place

Key = TypeVar("Key")
Value = TypeVar("Value")
STAY_LOADS: Final = 3  # load times for which a model that is asked for stays once it is loaded
DEFAULT_LOAD_S: Final = 10.0  # of a model whose load was never seen
RETURN_S: Final = 5.0  # within which a hive reports the memory of a worker that has ended as free
KEPT: Final = 4096  # models of which load time and need are remembered


def name_of(worker: WorkerInfo) -> str:
    """Return the name under which a worker serves: that of its declaration, else its model's reference."""
    return worker.served or worker.model_ref


def memory_of(worker: WorkerInfo) -> int:
    """Return the bytes of its device that are free again once a worker has ended, as far as is known."""
    return max(worker.memory_bytes or 0, worker.need_bytes or 0)


@dataclass(slots=True)
class _Life:
    """One worker's times: since when it is known, serves, and is not used."""

    known: float
    loaded: float | None = None
    idle: float | None = None


@dataclass(frozen=True, slots=True)
class _Returning:
    """Memory of workers that have ended, which the device does not report as free yet."""

    bytes: int
    until: float


class Occupancy:
    """The use of memory.

    Attributes:
        is_wanted: tells whether requests wait for a model, by its name.
        is_pinned: tells whether a worker never gives way to another model.
        claims: devices that are held for the next worker of a model, by its name.
        starting: devices on which workers are being ended for a model that is then started, with its name.
    """

    def __init__(self) -> None:
        self.is_wanted: Callable[[str], bool] = lambda _name: False
        self.is_pinned: Callable[[WorkerInfo], bool] = lambda worker: worker.keep == "always"
        self.claims: Mapping[Place, str] = {}
        self.starting: dict[Place, str] = {}
        self._returning: dict[Place, _Returning] = {}
        self._lives: dict[str, _Life] = {}
        self._load_s: OrderedDict[str, float] = OrderedDict()
        self._needs: OrderedDict[tuple[str, str | None, Backend], int] = OrderedDict()

    def observe(self, worker: WorkerInfo, now: float) -> None:
        """Take what a hive reports of a worker."""
        life = self._lives.setdefault(worker.worker_id, _Life(now))
        # What it was expected to take before it ran: what a hive tells when it is asked is nearer to the truth.
        if worker.need_bytes and self.need(name_of(worker), worker.revision, worker.backend) is None:
            self.learn_need(name_of(worker), worker.revision, worker.backend, worker.need_bytes)
        if not worker.state.serves:
            return
        if life.loaded is None:
            # One that served when it was first heard of has been loaded at some time before.
            if life.known < now:
                self._remember(self._load_s, name_of(worker), now - life.known)
            life.loaded = life.idle = now
        if worker.state is WorkerState.BUSY or worker.slots_available < worker.slots_total:
            life.idle = now

    def used(self, worker_id: str, now: float) -> None:
        """Note that a request of a worker begins or ends."""
        if (life := self._lives.get(worker_id)) is not None:
            life.idle = now

    def forget(self, worker_ids: Iterable[str]) -> None:
        """Forget workers that have ended."""
        for worker_id in worker_ids:
            self._lives.pop(worker_id, None)

    def freed(self, worker: WorkerInfo, now: float) -> None:
        """Take it that a worker has ended: its memory comes back, which its hive reports a moment later."""
        place = (worker.node, worker.backend, worker.device)
        self._returning[place] = _Returning(self.returning(place, now) + memory_of(worker), now + RETURN_S)

    def devices_reported(self, node: str) -> None:
        """Take it that a hive has told anew what its devices have free."""
        for place in [place for place in self._returning if place[0] == node]:
            del self._returning[place]

    def returning(self, place: Place, now: float) -> int:
        """Return the bytes of a device that workers have held which have just ended."""
        found = self._returning.get(place)
        return found.bytes if found is not None and now < found.until else 0

    def learn_need(self, name: str, revision: str | None, backend: Backend, need_bytes: int) -> None:
        """Remember what a model takes on a backend, in bytes, as a hive told."""
        self._remember(self._needs, (name, revision, backend), need_bytes)

    def need(self, name: str, revision: str | None, backend: Backend) -> int | None:
        """Return what a model takes, in bytes; None where no hive has told."""
        return self._needs.get((name, revision, backend))

    def load_time(self, name: str) -> float:
        """Return how long a model takes to load, in seconds."""
        return self._load_s.get(name, DEFAULT_LOAD_S)

    def idle_for(self, worker: WorkerInfo, now: float) -> float:
        """Return for how long nobody has used a worker, in seconds."""
        life = self._lives.get(worker.worker_id)
        return 0.0 if life is None or life.idle is None else max(now - life.idle, 0.0)

    def is_protected(self, worker: WorkerInfo, now: float) -> bool:
        """Return whether a worker is loading, or was a moment ago and requests wait for its model."""
        name, life = name_of(worker), self._lives.get(worker.worker_id)
        if life is None or life.loaded is None:
            return True
        return now - life.loaded < STAY_LOADS * self.load_time(name) and self.is_wanted(name)

    def cheapness(self, worker: WorkerInfo, now: float) -> float:
        """Return how little is lost with an idle worker: idle time x size / load time."""
        return self.idle_for(worker, now) * (memory_of(worker) or 1) / max(self.load_time(name_of(worker)), 0.001)

    @staticmethod
    def _remember(table: OrderedDict[Key, Value], key: Key, value: Value) -> None:
        table[key] = value
        table.move_to_end(key)
        while len(table) > KEPT:
            table.popitem(last=False)
