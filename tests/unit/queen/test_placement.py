"""Where a task runs, and why not elsewhere."""

from __future__ import annotations

from rbee.contracts.control import Closing, Hello, YieldedChanged
from rbee.contracts.devices import Backend, MemoryHolder, YieldedDevice
from rbee.contracts.errors import ErrorCode
from rbee.contracts.served import ServedModel
from rbee.contracts.version import is_compatible
from rbee.contracts.workers import Quarantine, WorkerState
from rbee.queen.registry import Registry
from rbee.queen.scheduling.placement import AwaitWorker, Decision, Fleet, SpawnWorker, UseWorker, place
from rbee.queen.scheduling.rejections import Refusal
from rbee.queen.scheduling.request import PlacementRequest
from tests.unit.queen.fleet import GB, MODEL, VERSION, device, entry, fleet_of, hello, link


def fleet(in_flight: dict[str, int] | None = None, **hives: Hello | None) -> Fleet:
    """Make a fleet of named hives; None is one that never answered."""
    registry = Registry(VERSION)
    for node, first in hives.items():
        registry.add_node(node, f"http://{node}:9200")
        if first is not None:
            registry.apply(node, first, now=0.0)
    return fleet_of(registry, in_flight)


def used(decision: Decision) -> str:
    assert isinstance(decision, UseWorker), decision
    return decision.link.worker.worker_id


def refused(decision: Decision) -> Refusal:
    assert isinstance(decision, Refusal), decision
    return decision


def test_a_warm_worker_is_reused() -> None:
    """A worker of the same model, backend and device is preferred to a new one anywhere."""
    found = place(fleet(attic=hello(link("w")), cellar=hello(devices=[device(free=60 * GB)])), PlacementRequest(MODEL))

    assert used(found) == "w"


def test_the_worker_with_the_most_free_slots_comes_first() -> None:
    """Of several matches the one with more free slots is used."""
    found = place(fleet(attic=hello(link("a", free=1)), cellar=hello(link("b", free=3))), PlacementRequest(MODEL))

    assert used(found) == "b"


def test_our_own_requests_count_before_the_hive_says_so() -> None:
    """Slots that this queen has just filled are not counted as free."""
    found = place(
        fleet({"b": 4}, attic=hello(link("a", free=1)), cellar=hello(link("b", free=4))), PlacementRequest(MODEL)
    )

    assert used(found) == "a"


def test_a_busy_worker_is_used_and_no_second_one_started() -> None:
    """While a matching worker exists there is no spawn, however busy it is."""
    found = place(fleet(attic=hello(link("w", state=WorkerState.BUSY, free=0))), PlacementRequest(MODEL))

    assert isinstance(found, UseWorker)
    assert found.free == 0


def test_a_loading_worker_is_waited_for() -> None:
    """A worker that loads the requested model is awaited, not doubled."""
    found = place(fleet(attic=hello(link("w", state=WorkerState.LOADING, free=0))), PlacementRequest(MODEL))

    assert isinstance(found, AwaitWorker)


def test_workers_that_end_are_not_used() -> None:
    """Draining, stopping and crashed workers match nothing."""
    ending = [link(s.value, state=s) for s in (WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.CRASHED)]

    assert isinstance(place(fleet(attic=hello(*ending)), PlacementRequest(MODEL)), SpawnWorker)


def test_another_spelling_of_the_model_matches() -> None:
    """A reference that is known to mean the same model finds its worker."""
    request = PlacementRequest("hf:org/bee", aliases=frozenset({"hf:org/bee:Q4_K_M"}))

    assert used(place(fleet(attic=hello(link("w", model="hf:org/bee:Q4_K_M"))), request)) == "w"


def test_another_model_backend_or_device_does_not_match() -> None:
    """Same model, same backend and the asked device, or it is another worker."""
    both = [device(Backend.CUDA, 0), device(Backend.CUDA, 1), device()]
    there = fleet(attic=hello(link("w", backend=Backend.CUDA, index=1), devices=both))

    assert isinstance(place(there, PlacementRequest("file:///other.gguf")), SpawnWorker)
    assert isinstance(place(there, PlacementRequest(MODEL, backend=Backend.CPU)), SpawnWorker)
    assert isinstance(place(there, PlacementRequest(MODEL, device=0)), SpawnWorker)
    assert used(place(there, PlacementRequest(MODEL, device=1))) == "w"
    assert used(place(there, PlacementRequest(MODEL))) == "w"


def test_the_best_backend_is_taken_and_a_cpu_worker_is_no_substitute() -> None:
    """Without a backend in the request a machine with CUDA uses CUDA, though a CPU worker is warm."""
    there = fleet(attic=hello(link("w"), devices=[device(Backend.CUDA), device()]))

    found = place(there, PlacementRequest(MODEL))

    assert isinstance(found, SpawnWorker)
    assert found.backend is Backend.CUDA


def test_the_next_backend_is_not_tried() -> None:
    """A model that does not fit the GPU is refused, though the CPU would hold it."""
    there = fleet(
        attic=hello(devices=[device(Backend.CUDA, free=1 * GB), device(free=60 * GB)], models=[entry(size=2 * GB)])
    )

    found = refused(place(there, PlacementRequest(MODEL)))

    assert found.code is ErrorCode.VRAM_EXHAUSTED
    error = found.error()
    assert (error.details["required_mb"], error.details["available_mb"]) == (2289, 953)


def test_the_place_that_has_the_file_comes_before_the_one_with_more_memory() -> None:
    """A model file already there is worth more than free memory."""
    found = place(
        fleet(attic=hello(models=[entry()]), cellar=hello(devices=[device(free=60 * GB)])),
        PlacementRequest(MODEL),
    )

    assert isinstance(found, SpawnWorker)
    assert (found.node, found.model_present) == ("attic", True)


def test_the_most_free_memory_comes_first_among_equals() -> None:
    """Without the file anywhere, the roomiest machine is chosen."""
    found = place(fleet(attic=hello(), cellar=hello(devices=[device(free=60 * GB)])), PlacementRequest(MODEL))

    assert isinstance(found, SpawnWorker)
    assert found.node == "cellar"


def test_a_known_size_keeps_a_small_machine_out() -> None:
    """A size known from one hive's catalog counts for every hive."""
    big = entry(size=20 * GB)
    found = place(
        fleet(attic=hello(models=[big]), cellar=hello(devices=[device(free=60 * GB)])),
        PlacementRequest(MODEL),
    )

    assert isinstance(found, SpawnWorker)
    assert found.node == "cellar"


def test_an_unknown_node_is_named_with_the_way_to_add_it() -> None:
    """A node that was never registered is NODE_NOT_FOUND."""
    error = refused(place(fleet(attic=hello()), PlacementRequest(MODEL, node="barn"))).error()

    assert error.code is ErrorCode.NODE_NOT_FOUND
    assert "barn" in error.message
    assert "config set-ssh" in error.hint


def test_only_the_asked_node_is_considered() -> None:
    """A request for a node is never moved to another one."""
    found = place(fleet(attic=hello(), cellar=hello(link("w"))), PlacementRequest(MODEL, node="attic"))

    assert isinstance(found, SpawnWorker)
    assert found.node == "attic"


def test_a_version_mismatch_names_both_versions_and_the_upgrade() -> None:
    """A hive of another minor version is refused with both versions and the command."""
    error = refused(place(fleet(attic=hello(version="0.2.0")), PlacementRequest(MODEL))).error()

    assert error.code is ErrorCode.VERSION_MISMATCH
    assert "0.2.0" in error.message
    assert VERSION in error.message
    assert error.hint == "Upgrade the hive: rbee-keeper hive upgrade --node attic"


def test_the_patch_version_does_not_matter() -> None:
    """Same major and minor work together."""
    assert is_compatible("1.4.0", "1.4.9")
    assert not is_compatible("1.4.0", "1.5.0")
    assert not is_compatible("1.4.0", "2.4.0")


def test_a_missing_backend_says_what_is_there() -> None:
    """BACKEND_UNAVAILABLE lists what the machine has."""
    error = refused(place(fleet(attic=hello()), PlacementRequest(MODEL, backend=Backend.CUDA))).error()

    assert error.code is ErrorCode.BACKEND_UNAVAILABLE
    assert error.details["available"] == ["cpu"]
    assert "it has cpu" in error.message


def test_a_broken_driver_is_told_apart_from_no_gpu() -> None:
    """A backend that was found and cannot be used gives its fault."""
    there = fleet(attic=hello(faults={Backend.CUDA: "driver and library differ"}))

    found = refused(place(there, PlacementRequest(MODEL, backend=Backend.CUDA)))

    assert found.code is ErrorCode.GPU_NOT_AVAILABLE
    assert "driver and library differ" in found.message


def test_a_broken_driver_is_not_passed_over() -> None:
    """Without a request a node with a broken GPU does not fall back to its CPU; another node may run the task."""
    broken = hello(faults={Backend.CUDA: "the driver did not answer"})

    refusal = refused(place(fleet(attic=broken), PlacementRequest(MODEL)))

    assert refusal.code is ErrorCode.GPU_NOT_AVAILABLE
    assert "did not answer" in refusal.message
    assert isinstance(place(fleet(attic=broken), PlacementRequest(MODEL, backend=Backend.CPU)), SpawnWorker)
    elsewhere = place(fleet(attic=broken, cellar=hello()), PlacementRequest(MODEL))
    assert isinstance(elsewhere, SpawnWorker)
    assert elsewhere.node == "cellar"


def barred(model: str | None = None, index: int | None = None, backend: Backend = Backend.CUDA) -> Quarantine:
    return Quarantine(
        model_ref=model,
        backend=None if index is None else backend,
        device=index,
        crashes=3,
        reason="3 workers crashed in a row",
        until_unix=1.0,
    )


def test_a_quarantined_model_is_placed_elsewhere_or_refused_with_the_reason() -> None:
    """A model in quarantine is not started on that node; the reason and the way out reach the user."""
    sick = hello().model_copy(update={"quarantined": [barred(MODEL)]})

    elsewhere = place(fleet(attic=sick, cellar=hello()), PlacementRequest(MODEL))
    assert isinstance(elsewhere, SpawnWorker)
    assert elsewhere.node == "cellar"
    error = refused(place(fleet(attic=sick), PlacementRequest(MODEL))).error()
    assert error.code is ErrorCode.QUARANTINED
    assert "3 workers crashed in a row" in error.message
    assert f"worker start --node attic --model {MODEL}" in error.hint
    assert isinstance(place(fleet(attic=sick), PlacementRequest("package:another/model.gguf")), SpawnWorker)


def test_a_worker_that_lives_is_used_in_spite_of_a_quarantine() -> None:
    """A quarantine keeps new workers away; one that serves has proved itself."""
    sick = hello(link("w")).model_copy(update={"quarantined": [barred(MODEL)]})

    assert used(place(fleet(attic=sick), PlacementRequest(MODEL))) == "w"


def test_a_quarantined_device_is_passed_over_and_nothing_falls_back() -> None:
    """Another device of the backend is used; where there is none the request fails rather than run on the CPU."""
    gpus = [device(Backend.CUDA, 0), device(Backend.CUDA, 1), device()]
    one = hello(devices=gpus).model_copy(update={"quarantined": [barred(index=0)]})
    both = hello(devices=gpus).model_copy(update={"quarantined": [barred(index=0), barred(index=1)]})

    assert isinstance(place(fleet(attic=one), PlacementRequest(MODEL)), SpawnWorker)
    assert refused(place(fleet(attic=one), PlacementRequest(MODEL, device=0))).code is ErrorCode.QUARANTINED
    refusal = refused(place(fleet(attic=both), PlacementRequest(MODEL)))
    assert refusal.code is ErrorCode.QUARANTINED
    assert "cuda device 0" in refusal.message


def test_a_missing_device_lists_the_devices() -> None:
    """INVALID_DEVICE lists the indices of the backend."""
    error = refused(place(fleet(attic=hello()), PlacementRequest(MODEL, backend=Backend.CPU, device=5))).error()

    assert error.code is ErrorCode.INVALID_DEVICE
    assert error.details["devices"] == [0]


def test_every_rejected_node_has_its_reason() -> None:
    """The refusal of a fleet speaks for the closest candidate and lists them all."""
    registry = Registry(VERSION)
    for node in ("attic", "barn", "cellar"):
        registry.add_node(node, f"http://{node}:9200")
    registry.apply("attic", hello(), now=0.0)
    registry.apply("attic", Closing(), now=0.0)
    registry.apply("barn", hello(version="9.0.0"), now=0.0)
    registry.lost("cellar", "connection refused")

    found = refused(place(Fleet(registry), PlacementRequest(MODEL)))

    assert found.code is ErrorCode.DRAINING
    assert [(r.node, r.code) for r in found.rejected] == [
        ("attic", ErrorCode.DRAINING),
        ("barn", ErrorCode.VERSION_MISMATCH),
        ("cellar", ErrorCode.CONNECTION_TIMEOUT),
    ]
    assert "connection refused" in found.message


def test_the_refusal_of_a_large_fleet_tells_of_those_that_came_closest() -> None:
    """The message names ten nodes and how many more there are, the details a hundred; the closest come first."""
    hives = {f"n{number:03}": None for number in range(300)}
    there = fleet(None, **hives, near=hello(devices=[device(free=1)], models=[entry()]))

    found = refused(place(there, PlacementRequest(MODEL)))

    assert found.code is ErrorCode.RAM_EXHAUSTED
    assert found.message.startswith(f"None of 301 nodes can run {MODEL}: near: the model needs")
    assert found.message.endswith("; n008: its hive does not answer; and 291 more.")
    assert [row["node"] for row in found.error().details["rejected"]][:2] == ["near", "n000"]
    assert len(found.error().details["rejected"]) == 100


def test_equal_fleets_give_equal_answers() -> None:
    """Names break ties, so that the order of registration does not matter."""
    one = place(fleet(attic=hello(), cellar=hello()), PlacementRequest(MODEL))
    other = place(fleet(cellar=hello(), attic=hello()), PlacementRequest(MODEL))

    assert one == other


def test_a_large_fleet_is_searched_whole() -> None:
    """Among 500 workers on 100 nodes the only free match is found."""
    hives = {
        f"node{n:03}": hello(*(link(f"w{n:03}-{k}", state=WorkerState.BUSY, free=0) for k in range(5)))
        for n in range(99)
    }
    there = fleet(None, **hives, zzz=hello(link("free")))

    assert used(place(there, PlacementRequest(MODEL))) == "free"


def test_a_declared_model_is_served_on_the_backend_that_it_names() -> None:
    """Its worker on the CPU of a machine with a GPU takes its requests, which name no backend themselves."""
    bee = ServedModel.model_validate({"name": "bee", "model": MODEL, "where": {"backend": "cpu"}})
    both = [device(Backend.CUDA), device()]
    there = fleet(attic=hello(link("other"), link("w", served="bee"), devices=both))

    assert used(place(there, PlacementRequest(MODEL, served=bee))) == "w"
    assert used(place(there, PlacementRequest(MODEL, node="attic", served=bee))) == "w"


def yielded(index: int = 0, until: float | None = 1_767_232_800.0, backend: Backend = Backend.CUDA) -> YieldedDevice:
    return YieldedDevice(backend=backend, device=index, since_unix=1_767_225_600.0, until_unix=until)


GPUS = [device(Backend.CUDA, 0, 9 * GB), device(Backend.CUDA, 1), device()]


def test_a_yielded_device_is_passed_over_and_nothing_falls_back() -> None:
    """Another device or node is used; where there is none, never the CPU, the request is refused with until when."""
    one = hello(devices=GPUS).model_copy(update={"yielded": [yielded(0)]})
    both = hello(devices=GPUS).model_copy(update={"yielded": [yielded(0, None), yielded(1)]})

    found = place(fleet(attic=one), PlacementRequest(MODEL))
    assert isinstance(found, SpawnWorker)
    assert found.device in (None, 1)
    elsewhere = place(fleet(attic=both, cellar=hello()), PlacementRequest(MODEL))
    assert isinstance(elsewhere, SpawnWorker)
    assert elsewhere.node == "cellar"
    error = refused(place(fleet(attic=both), PlacementRequest(MODEL))).error()
    assert error.code is ErrorCode.DEVICE_YIELDED
    assert "its cuda device 1 is yielded to another program until 2026-01-01 02:00 UTC" in error.message
    assert "hive resume --node attic" in error.hint
    assert refused(place(fleet(attic=one), PlacementRequest(MODEL, device=0))).code is ErrorCode.DEVICE_YIELDED


def test_a_worker_on_a_yielded_device_gets_no_request_more() -> None:
    """From the moment a device is yielded its workers are not used, also before they are heard to stop; then again."""
    gpus = [link("w", backend=Backend.CUDA, index=0), link("v", backend=Backend.CUDA, index=1, free=1)]
    found = fleet(attic=hello(*gpus, devices=GPUS))
    assert used(place(found, PlacementRequest(MODEL))) == "w"

    found.registry.apply("attic", YieldedChanged(yielded=[yielded(0)]), now=1.0)
    found.registry.check_invariants()
    assert used(place(found, PlacementRequest(MODEL))) == "v"
    assert used(place(found, PlacementRequest(MODEL, node="attic"))) == "v"
    assert isinstance(place(found, PlacementRequest(MODEL, device=0)), Refusal)
    hive = found.registry.hive("attic")
    assert hive is not None
    assert [each.device for each in hive.info().yielded] == [0]

    found.registry.apply("attic", YieldedChanged(yielded=[]), now=2.0)
    found.registry.check_invariants()
    assert used(place(found, PlacementRequest(MODEL))) == "w"


def test_too_little_memory_names_who_else_holds_it() -> None:
    """The reason for a node says what other programs hold of its memory."""
    holder = MemoryHolder(pid=4242, name="blender", bytes=6 * 2**30)
    full = device(Backend.CUDA, 0, 1).model_copy(update={"foreign_bytes": 6 * 2**30, "held_by": [holder]})

    refusal = refused(place(fleet(attic=hello(devices=[full], models=[entry(size=GB)])), PlacementRequest(MODEL)))

    assert refusal.code is ErrorCode.VRAM_EXHAUSTED
    assert "other programs hold 6144 MB, the most blender (process 4242)" in refusal.message
