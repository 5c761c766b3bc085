"""The worker that placement finds by its index is the one that looking at every worker of the fleet would give."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from rbee.contracts.control import Closing, DevicesChanged, WorkerChanged
from rbee.contracts.devices import Backend, Detection, Device
from rbee.contracts.version import is_compatible
from rbee.contracts.workers import WorkerAccess, WorkerState
from rbee.queen.registry import Registry
from rbee.queen.scheduling.placement import MIN_PREFIX_HASHES, AwaitWorker, Fleet, UseWorker, place
from rbee.queen.scheduling.prefix_index import PrefixHashes, PrefixIndex
from rbee.queen.scheduling.request import PlacementRequest
from tests.unit.queen.fleet import MODEL, VERSION, device, hello, link

OTHER = "hf:org/wax:Q4_K_M"
PROMPTS: list[PrefixHashes] = [(), tuple(range(3)), tuple(range(12)), (*range(10), 90, 91), tuple(range(50, 62))]
BACKENDS = st.sampled_from(Backend)

devices = st.builds(device, BACKENDS, st.integers(0, 1))
workers = st.builds(
    link,
    st.just("named later"),
    model=st.sampled_from([MODEL, OTHER]),
    backend=BACKENDS,
    index=st.integers(0, 1),
    state=st.sampled_from([*WorkerState, *[WorkerState.IDLE] * 6]),
    free=st.integers(0, 4),
    slots=st.sampled_from([1, 4, 8]),
)


@dataclass
class Machine:
    """A hive of a random fleet; `late` workers are reported after its hello, in place of those of the same number."""

    devices: list[Device]
    workers: list[WorkerAccess]
    late: list[WorkerAccess]
    broken: bool
    version: str
    state: str


machines = st.builds(
    Machine,
    st.lists(devices, max_size=3),
    st.lists(workers, max_size=4),
    st.lists(workers, max_size=2),
    st.sampled_from([False, False, True]),
    st.sampled_from([VERSION, VERSION, VERSION, "0.1.9", "7.0.0"]),
    st.sampled_from(["connected"] * 5 + ["closing", "lost", "never seen", "changed devices"]),
)
requests = st.builds(
    PlacementRequest,
    st.sampled_from([MODEL, "hf:org/wax"]),
    node=st.sampled_from([None, None, None, "n0", "n1", "nowhere"]),
    backend=st.sampled_from([None, None, *Backend]),
    device=st.sampled_from([None, None, None, 0, 1]),
    aliases=st.just(frozenset({"hf:org/wax", OTHER})) | st.just(frozenset()),
    prefix_hashes=st.sampled_from(PROMPTS),
)


@dataclass
class Known:
    """A random fleet, and what its workers do for this queen."""

    registry: Registry = field(default_factory=lambda: Registry(VERSION))
    in_flight: dict[str, int] = field(default_factory=dict)
    prefixes: PrefixIndex = field(default_factory=PrefixIndex)

    def join(self, node: str, machine: Machine) -> None:
        """Have a machine report."""

        def named(link: WorkerAccess, number: int) -> WorkerAccess:
            worker = link.worker.model_copy(update={"worker_id": f"{node}-{number}"})
            return link.model_copy(update={"worker": worker})

        self.registry.add_node(node, f"http://{node}:9200")
        if machine.state == "never seen":
            return
        there = [named(link, number) for number, link in enumerate(machine.workers)]
        faults = {Backend.CUDA: "the driver did not answer"} if machine.broken else None
        first = hello(*there, devices=machine.devices, faults=faults, version=machine.version)
        self.registry.apply(node, first, now=0.0)
        for number, one in enumerate(machine.late):
            self.registry.apply(node, WorkerChanged(link=named(one, number)), now=0.0)
        if machine.state == "closing":
            self.registry.apply(node, Closing(), now=0.0)
        elif machine.state == "lost":
            self.registry.lost(node, "the cable was pulled")
        elif machine.state == "changed devices":
            self.registry.apply(node, DevicesChanged(detection=Detection(devices=[device(index=1)])), now=0.0)


def search_exhaustively(known: Known, request: PlacementRequest) -> WorkerAccess | None:
    """Return the worker that the rules choose, found by looking at every worker of the fleet; None for no worker."""
    found: list[tuple[int, int, str, str, int, WorkerAccess]] = []
    loading: list[tuple[str, str, WorkerAccess]] = []
    for hive in known.registry.hives():
        backend = request.backend or hive.detection.best
        if (
            request.node not in (None, hive.node)
            or not hive.connected
            or hive.closing
            or not is_compatible(VERSION, hive.version or "")
            or backend not in hive.detection.backends
        ):
            continue
        indices = [each.index for each in hive.detection.devices if each.backend is backend]
        for worker_id, access in hive.workers.items():
            worker = access.worker
            fits = request.device is None or (worker.device == request.device and request.device in indices)
            if not request.matches(worker.model_ref) or worker.backend is not backend or not fits:
                continue
            if worker.state.serves:
                in_flight = known.in_flight.get(worker_id, 0)
                free = max(0, min(worker.slots_total - in_flight, worker.slots_available))
                held = len(known.prefixes.conversations().get(worker_id, ()))
                found.append((-free, held, hive.node, worker_id, worker.slots_total - free, access))
            elif worker.state in (WorkerState.STARTING, WorkerState.LOADING):
                loading.append((hive.node, worker_id, access))
    if not found:
        return min(loading)[2] if loading else None
    free_ones = [one for one in found if one[0]]
    if request.prefix_hashes and free_ones:
        least, fewest = min(one[4] for one in free_ones), min(one[1] for one in free_ones)
        idle = [one for one in free_ones if one[4] - least <= max(1, one[5].worker.slots_total // 2)]
        sticky = known.prefixes.sticky_workers(request.prefix_hashes)
        lengths = known.prefixes.match_lengths(request.prefix_hashes)
        if own := [one for one in idle if one[3] in sticky]:
            return min(own)[5]
        if read := [
            (-lengths[one[3]], one)
            for one in idle
            if lengths.get(one[3], 0) >= MIN_PREFIX_HASHES and one[1] - fewest <= max(1, one[5].worker.slots_total // 2)
        ]:
            return min(read)[1][5]
    return min(found)[5]


@settings(max_examples=500)
@given(
    st.lists(machines, max_size=4),
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(PROMPTS), st.integers(-1, 2)), max_size=12
    ),
    requests,
)
def test_the_index_gives_the_worker_that_a_search_of_the_whole_fleet_gives(
    fleet: list[Machine], uses: list[tuple[int, int, PrefixHashes, int]], request: PlacementRequest
) -> None:
    """Whatever the fleet looks like and does, a request gets the worker that looking at every worker would choose."""
    known = Known()
    view = Fleet(known.registry, known.prefixes)
    for number, machine in enumerate(fleet):
        known.join(f"n{number}", machine)
    for node, number, prompt, more in uses:
        worker_id = f"n{node}-{number}"
        known.prefixes.remember(worker_id, prompt, slots=4)
        known.registry.index.hold(worker_id, len(known.prefixes.conversations().get(worker_id, ())))
        before = known.in_flight.get(worker_id, 0)
        known.in_flight[worker_id] = max(0, before + more)
        for _ in range(more):
            known.registry.index.begin(worker_id)
        if more < 0 < before:
            known.registry.index.end(worker_id)
        place(view, request)  # at the first request the candidates are put in order; later changes keep them so

    decision = place(view, request)

    expected = search_exhaustively(known, request)
    found = decision.link if isinstance(decision, UseWorker | AwaitWorker) else None
    assert found is expected
    known.registry.check_invariants()
