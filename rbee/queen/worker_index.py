"""Find the workers of a model, those with the most free slots first, without going over the fleet. Pure.

A worker is filed by its id, under the reference of its model, and under the declared model that it was started for.
The candidates for requests that name a model, and a backend or none, are put in order at the first such request, and
kept so from then on: what a request costs depends neither on the number of workers nor on that of its model's.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from rbee.contracts.devices import Backend
from rbee.contracts.workers import WorkerAccess, WorkerState

_BEGINNING = (WorkerState.STARTING, WorkerState.LOADING)


class Candidate(NamedTuple):
    """A worker that serves; the smallest is chosen: most free slots, fewest conversations, then by node and id."""

    minus_free: int
    conversations: int
    node: str
    worker_id: str
    running: int
    link: WorkerAccess


class LoadingWorker(NamedTuple):
    """A worker that will serve; the smallest is waited for."""

    node: str
    worker_id: str
    link: WorkerAccess


class Candidates:
    """The workers among which one request has its choice, in order: those that serve, and those that will."""

    def __init__(self) -> None:
        self.serving: list[Candidate] = []
        self.loading: list[LoadingWorker] = []
        # Of those with a free slot; no more different numbers than a worker has slots.
        self._running: Counter[int] = Counter()
        self._conversations: Counter[int] = Counter()

    @property
    def least_running(self) -> int:
        """Return how many requests the idlest has; one of them must have a free slot."""
        return min(self._running)

    @property
    def fewest_conversations(self) -> int:
        """Return how many conversations are held where there are fewest; one must have a free slot."""
        return min(self._conversations)

    def add(self, one: Candidate | LoadingWorker) -> None:
        """Add a worker."""
        if isinstance(one, LoadingWorker):
            insort(self.loading, one)
            return
        insort(self.serving, one)
        if one.minus_free:
            self._running[one.running] += 1
            self._conversations[one.conversations] += 1

    def discard(self, one: Candidate | LoadingWorker) -> None:
        """Remove a worker that was added."""
        if isinstance(one, LoadingWorker):
            del self.loading[bisect_left(self.loading, one)]
            return
        del self.serving[bisect_left(self.serving, one)]
        if one.minus_free:
            for counted, number in ((self._running, one.running), (self._conversations, one.conversations)):
                counted[number] -= 1
                if not counted[number]:
                    del counted[number]

    def __contains__(self, one: Candidate) -> bool:
        at = bisect_left(self.serving, one)
        return at < len(self.serving) and self.serving[at] is one

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidates) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # it changes


@dataclass(frozen=True, slots=True)
class FiledWorker:
    """A worker as filed: `kinds` are the backends for which requests may use it, None for those that name none.

    `choice` is what it is among candidates; None in a state in which no request is sent to it.
    """

    node: str
    link: WorkerAccess
    kinds: tuple[Backend | None, ...]
    choice: Candidate | LoadingWorker | None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the reference of its model, and the declared model that it was started for."""
        return names_of(self.link)


class WorkerIndex:
    """The workers of the fleet by id and by model, and how busy this queen's own requests make them.

    Invariant (`check_invariants`): what is kept is what filing every worker anew would give.
    """

    def __init__(self) -> None:
        self._filed: dict[str, FiledWorker] = {}
        self._ids: dict[str, dict[str, None]] = {}
        self._candidates: dict[tuple[str, Backend | None], Candidates] = {}
        self._in_flight: Counter[str] = Counter()
        self._conversations: dict[str, int] = {}
        self._retired: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self._filed)

    def put(self, node: str, link: WorkerAccess, kinds: tuple[Backend | None, ...]) -> bool:
        """File a worker, or file it anew; return whether that changed anything."""
        worker_id = link.worker.worker_id
        known = self._filed.get(worker_id)
        if known is not None and known.link is link and known.node == node and known.kinds == kinds:
            return False
        filed = FiledWorker(node, link, kinds, self._choice(node, link))
        if known is not None and known.names != filed.names:
            self.remove(worker_id)
        elif known is not None:
            self._discard(known)
        for name in filed.names:
            self._ids.setdefault(name, {})[worker_id] = None
        self._keep(filed)
        return True

    def remove(self, worker_id: str) -> None:
        """Remove a worker that is filed."""
        filed = self._filed.pop(worker_id)
        self._discard(filed)
        for name in filed.names:
            of_name = self._ids[name]
            del of_name[worker_id]
            if not of_name:
                del self._ids[name]
                for kind in (None, *Backend):
                    self._candidates.pop((name, kind), None)

    def find(self, worker_id: str) -> FiledWorker | None:
        """Return a worker, or None."""
        return self._filed.get(worker_id)

    def of(self, names: Iterable[str]) -> Iterator[FiledWorker]:
        """Yield the workers of models, in whatever state, by the references or names of these."""
        for name in names:
            yield from map(self._filed.__getitem__, self._ids.get(name, ()))

    def candidates(self, names: Iterable[str], backend: Backend | None) -> list[Candidates]:
        """Return the workers that requests may be sent to, as one or several groups, none of them empty."""
        found = [self._candidates_of(name, backend) for name in names if name in self._ids]
        return [group for group in found if group.serving or group.loading]

    def candidates_among(
        self, worker_ids: Iterable[str], names: Collection[str], backend: Backend | None, device: int | None
    ) -> list[Candidates]:
        """Return those of some workers that requests may be sent to, only those on *device* where one is named."""
        group = Candidates()
        for filed in filter(None, map(self._filed.get, worker_ids)):
            wanted = backend in filed.kinds and device in (None, filed.link.worker.device)
            if filed.choice is not None and wanted and any(name in names for name in filed.names):
                group.add(filed.choice)
        return [group] if group.serving or group.loading else []

    def begin(self, worker_id: str) -> None:
        """Count a request that this queen sends to a worker."""
        self._in_flight[worker_id] += 1
        self._weigh_again(worker_id)

    def end(self, worker_id: str) -> None:
        """Count the end of such a request."""
        self._in_flight[worker_id] -= 1
        if not self._in_flight[worker_id]:
            del self._in_flight[worker_id]
        self._weigh_again(worker_id)

    def in_flight(self, worker_id: str) -> int:
        """Return how many requests of this queen a worker has."""
        return self._in_flight.get(worker_id, 0)

    def retire(self, worker_ids: frozenset[str]) -> None:
        """Send no more requests to these workers, and again to those that were retired before."""
        changed = worker_ids ^ self._retired
        self._retired = worker_ids
        for worker_id in changed:
            self._weigh_again(worker_id)

    def is_retired(self, worker_id: str) -> bool:
        """Return whether a worker gets no more requests."""
        return worker_id in self._retired

    def hold(self, worker_id: str, conversations: int) -> None:
        """Record how many conversations a worker holds."""
        if conversations:
            self._conversations[worker_id] = conversations
        else:
            self._conversations.pop(worker_id, None)
        self._weigh_again(worker_id)

    def check_invariants(self) -> None:
        """Raise AssertionError where candidates contradict the workers."""
        anew = WorkerIndex()
        anew._in_flight, anew._conversations = self._in_flight, self._conversations
        anew._retired = self._retired
        for filed in self._filed.values():
            anew.put(filed.node, filed.link, filed.kinds)
        for name, backend in self._candidates:
            anew.candidates([name], backend)
        assert vars(anew) == vars(self), "the index of workers is not what its workers give"
        assert all(count > 0 for count in self._in_flight.values()), "fewer than no requests are in flight"

    def _candidates_of(self, name: str, backend: Backend | None) -> Candidates:
        group = self._candidates.get((name, backend))
        if group is None:
            group = self._candidates[name, backend] = Candidates()
            for filed in self.of([name]):
                if filed.choice is not None and backend in filed.kinds:
                    group.add(filed.choice)
        return group

    def _choice(self, node: str, link: WorkerAccess) -> Candidate | LoadingWorker | None:
        worker = link.worker
        worker_id = worker.worker_id
        if worker_id in self._retired:
            return None
        if worker.state.serves:
            # As the hive reports and as our own requests suggest; the lower is nearer to the truth.
            free = max(0, min(worker.slots_total - self._in_flight.get(worker_id, 0), worker.slots_available))
            conversations = self._conversations.get(worker_id, 0)
            return Candidate(-free, conversations, node, worker_id, worker.slots_total - free, link)
        return LoadingWorker(node, worker_id, link) if worker.state in _BEGINNING else None

    def _weigh_again(self, worker_id: str) -> None:
        known = self._filed.get(worker_id)
        if known is None:
            return
        choice = self._choice(known.node, known.link)
        if choice == known.choice:
            return
        self._discard(known)
        self._keep(FiledWorker(known.node, known.link, known.kinds, choice))

    def _keep(self, filed: FiledWorker) -> None:
        self._filed[filed.link.worker.worker_id] = filed
        if filed.choice is not None:
            for group in self._groups(filed):
                group.add(filed.choice)

    def _discard(self, filed: FiledWorker) -> None:
        if filed.choice is not None:
            for group in self._groups(filed):
                group.discard(filed.choice)

    def _groups(self, filed: FiledWorker) -> Iterator[Candidates]:
        """Yield the candidates, of those that are kept, to which a worker belongs."""
        for name in filed.names:
            for kind in filed.kinds:
                group = self._candidates.get((name, kind))
                if group is not None:
                    yield group


def names_of(link: WorkerAccess) -> tuple[str, ...]:
    """Return the names under which a worker is filed: its model's reference, and the declared model it is for."""
    worker = link.worker
    return (worker.model_ref,) if worker.served in (None, worker.model_ref) else (worker.model_ref, worker.served)
