"""What hives say is what the queen knows, in whatever order they say it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.contracts.control import (
    Closing,
    DevicesChanged,
    Heartbeat,
    Hello,
    HiveMessage,
    ModelsChanged,
    WorkerChanged,
    WorkerGone,
)
from rbee.contracts.devices import Backend, Detection
from rbee.contracts.workers import WorkerState
from rbee.queen.hive import reachable
from rbee.queen.registry import GONE_KEPT, Registry
from tests.unit.queen.fleet import MODEL, device, entry, hello, link

NODES = ["attic", "cellar"]
IDS = [f"worker-{n}" for n in range(4)]

CATALOG = [
    entry(),
    entry("hf:org/wax:Q4_K_M"),
    entry("hf:org/honey:Q8_0/honey.gguf").model_copy(update={"local_path": "/models/honey.gguf"}),
]

links = st.builds(
    link,
    st.sampled_from(IDS),
    model=st.sampled_from([MODEL, "hf:org/wax:Q4_K_M", "hf:org/honey:Q8_0/honey.gguf"]),
    served=st.sampled_from([None, "bee"]),
    backend=st.sampled_from(Backend),
    state=st.sampled_from(WorkerState),
    free=st.integers(0, 4),
)
messages: st.SearchStrategy[HiveMessage] = st.one_of(
    st.lists(links, max_size=3).map(lambda some: hello(*some)),
    links.map(lambda one: WorkerChanged(link=one)),
    st.sampled_from(IDS).map(lambda worker_id: WorkerGone(worker_id=worker_id, reason="ended")),
    st.lists(st.sampled_from(CATALOG), max_size=3, unique_by=lambda one: one.reference).map(
        lambda some: ModelsChanged(models=some)
    ),
    st.just(DevicesChanged(detection=Detection(devices=[device(free=1)]))),
    st.just(DevicesChanged(detection=Detection(devices=[device(Backend.CUDA), device()]))),
    st.just(Heartbeat()),
    st.just(Closing()),
)
steps = st.one_of(
    st.tuples(st.sampled_from(NODES), messages),
    st.tuples(st.sampled_from(NODES), st.sampled_from(["lost", "ended", "add", "remove"])),
)


def perform(registry: Registry, node: str, step: HiveMessage | str, now: float) -> None:
    """Do one step to the registry."""
    match step:
        case "lost":
            registry.lost(node, "the cable was pulled")
        case "ended":
            registry.lost(node, "its hive closed the channel", ended=True)
        case "add":
            registry.add_node(node, f"http://{node}:9200")
        case "remove":
            registry.remove_node(node)
        case str():
            raise AssertionError(step)
        case _:
            registry.apply(node, step, now=now)


def known(registry: Registry, *workers: str, node: str = "attic") -> bool:
    return sorted(worker.worker_id for worker in registry.workers(node)) == sorted(workers)


def registry_with(first: Hello) -> Registry:
    registry = Registry()
    registry.add_node("attic", "http://attic:9200")
    registry.apply("attic", first, now=0.0)
    return registry


@given(st.lists(steps, max_size=30))
def test_any_order_of_messages_leaves_the_registry_consistent(story: list[tuple[str, HiveMessage | str]]) -> None:
    """After every step of any story the invariants hold."""
    registry = Registry()
    for node in NODES:
        registry.add_node(node, f"http://{node}:9200")

    for now, (node, step) in enumerate(story):
        perform(registry, node, step, float(now))

        registry.check_invariants()


@given(st.lists(messages, max_size=20))
def test_a_hello_after_a_restart_of_the_queen_gives_the_state_before(story: list[HiveMessage]) -> None:
    """What a fresh queen learns from one Hello equals what the old one learnt from the whole story."""
    old = registry_with(hello())
    for message in story:
        old.apply("attic", message, now=1.0)
    before = old.hive("attic")
    assert before is not None
    resumed = Hello(
        hive_id="hive-1",
        version="0.1.0",
        detection=before.detection,
        models=list(before.models),
        workers=list(before.workers.values()),
    )

    fresh = registry_with(resumed).hive("attic")

    assert fresh is not None
    assert (fresh.workers, fresh.models, fresh.detection) == (before.workers, before.models, before.detection)


def test_a_hello_replaces_everything_known() -> None:
    """A worker that the hive no longer names is forgotten."""
    registry = registry_with(hello(link("worker-0"), link("worker-1")))

    registry.apply("attic", hello(link("worker-1")), now=1.0)

    assert known(registry, "worker-1")


def test_workers_carry_the_queens_name_of_their_node() -> None:
    """A hive need not know what it is called."""
    registry = registry_with(hello(link("worker-0")))

    assert registry.workers()[0].node == "attic"


def test_a_worker_that_is_gone_does_not_come_back_by_a_late_message() -> None:
    """The answer to a spawn may overtake the news of the worker's death; the death wins."""
    registry = registry_with(hello())
    registry.apply("attic", WorkerGone(worker_id="worker-0", reason="out of memory", crashed=True), now=1.0)

    registry.apply("attic", WorkerChanged(link=link("worker-0")), now=2.0)

    assert known(registry)
    gone = registry.gone("worker-0")
    assert gone is not None
    assert gone.reason == "out of memory"


def test_a_hive_speaks_for_its_own_workers_only() -> None:
    """What a hive says of the end of another hive's worker is ignored."""
    registry = registry_with(hello(link("worker-0")))
    registry.add_node("cellar", "http://cellar:9200")
    registry.apply("cellar", hello(), now=1.0)

    registry.apply("cellar", WorkerGone(worker_id="worker-0", reason="ended"), now=2.0)

    assert known(registry, "worker-0")
    assert registry.gone("worker-0") is None


def test_a_silent_hive_keeps_what_it_had_for_lists() -> None:
    """Its workers of before are listed apart until it answers, but for those that ended or are elsewhere."""
    registry = registry_with(hello(link("worker-0"), link("worker-1"), link("worker-2")))
    registry.add_node("cellar", "http://cellar:9200")

    registry.lost("attic", "no message for 10 s")
    registry.lost("attic", "no connection within 5 s")
    registry.apply("cellar", hello(link("worker-1")), now=5.0)
    registry.apply("attic", WorkerGone(worker_id="worker-2", reason="ended"), now=0.5)

    (silent,) = registry.unreachable()
    assert (silent.node, silent.reason, silent.last_seen_unix) == ("attic", "no connection within 5 s", 0.5)
    assert [worker.worker_id for worker in silent.workers] == ["worker-0"]
    assert registry.unreachable("cellar") == []
    registry.apply("attic", hello(), now=9.0)
    assert registry.unreachable() == []


def test_a_hive_that_ended_has_no_workers_of_before() -> None:
    """The workers of a hive that closes its channel, at its end or because it was killed, end with it."""
    killed, stopped = registry_with(hello(link("worker-0"))), registry_with(hello(link("worker-0")))

    killed.lost("attic", "its hive closed the channel", ended=True)
    stopped.apply("attic", Closing(), now=1.0)
    stopped.lost("attic", "connection reset")

    assert [hive.workers for hive in (*killed.unreachable(), *stopped.unreachable())] == [[], []]


def test_a_lost_hive_has_no_workers_and_says_why() -> None:
    """Nothing is promised of a machine that is not heard."""
    registry = registry_with(hello(link("worker-0")))

    registry.lost("attic", "the connection closed")

    hive = registry.hive("attic")
    assert hive is not None
    assert (hive.connected, dict(hive.workers), hive.last_error) == (False, {}, "the connection closed")
    assert registry.worker("worker-0") is None


def test_a_worker_is_found_by_its_model_and_by_the_declared_model_it_is_for() -> None:
    """Both names lead to it, whatever its state, for as long as its hive has it; the step that ends that says so."""
    registry = registry_with(hello(link("worker-0", served="bee"), link("worker-1", state=WorkerState.DRAINING)))

    assert [filed.link.worker.worker_id for filed in registry.index.of([MODEL])] == ["worker-0", "worker-1"]
    assert [filed.link.worker.worker_id for filed in registry.index.of(["bee"])] == ["worker-0"]
    changes = registry.lost("attic", "the cable was pulled")
    assert changes.names == {"attic", "worker-0", "worker-1", MODEL, "bee"}
    assert list(registry.index.of([MODEL, "bee"])) == []


def test_a_step_tells_which_workers_have_ended_with_it() -> None:
    """A silent hive may come back with its workers; what it then has no more, or what ended with it, has ended."""
    registry = registry_with(hello(link("worker-0"), link("worker-1"), link("worker-2")))
    registry.add_node("cellar", "http://cellar:9200")

    assert registry.lost("attic", "no message for 10 s").ended == set()
    assert registry.apply("cellar", hello(link("worker-1")), now=1.0).ended == set()
    assert registry.apply("attic", hello(link("worker-2")), now=2.0).ended == {"worker-0"}
    assert registry.apply("attic", WorkerChanged(link=link("worker-1")), now=3.0).ended == set()
    assert registry.lost("attic", "its hive closed the channel", ended=True).ended == {"worker-1", "worker-2"}


def test_messages_of_a_removed_node_change_nothing() -> None:
    """A channel that is being closed cannot bring its node back."""
    registry = registry_with(hello())
    registry.remove_node("attic")

    registry.apply("attic", hello(link("worker-0")), now=1.0)

    assert registry.hives() == []


def test_the_memory_of_ended_workers_is_bounded() -> None:
    """Only the latest ends are remembered."""
    registry = registry_with(hello())

    for n in range(GONE_KEPT + 10):
        registry.apply("attic", WorkerGone(worker_id=f"worker-{n}", reason="ended"), now=1.0)

    registry.check_invariants()
    assert registry.gone("worker-0") is None
    assert registry.gone(f"worker-{GONE_KEPT}") is not None


@pytest.mark.parametrize(
    ("worker", "hive", "seen"),
    [
        ("http://0.0.0.0:8001", "http://10.0.0.5:9200", "http://10.0.0.5:8001"),
        ("http://[::]:8001", "http://[fd00::5]:9200", "http://[fd00::5]:8001"),
        ("http://127.0.0.1:8001", "http://10.0.0.5:9200", "http://127.0.0.1:8001"),
        ("http://10.0.0.6:8001", "http://10.0.0.5:9200", "http://10.0.0.6:8001"),
        ("http://0.0.0.0:8001", "", "http://0.0.0.0:8001"),
    ],
    ids=["everywhere", "everywhere, IPv6", "its own machine only", "an address", "a hive without an address"],
)
def test_a_worker_that_listens_everywhere_is_reached_where_its_hive_is(worker: str, hive: str, seen: str) -> None:
    """An address that means "everywhere" is replaced by the one at which the queen reaches the hive; others stay."""
    assert reachable(worker, hive) == seen
