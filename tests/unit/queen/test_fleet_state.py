"""What wakes who waits for a change of the fleet, and what is remembered of workers that come and go."""

from __future__ import annotations

import asyncio

from rbee.contracts.control import Heartbeat, HiveMessage, WorkerChanged, WorkerGone
from rbee.contracts.workers import WorkerState
from rbee.queen.fleet.state import FleetState
from rbee.queen.scheduling.placement import UseWorker
from rbee.queen.scheduling.request import PlacementRequest
from tests.unit.queen.fleet import MODEL, hello, link

PROMPT = tuple(range(12))
OTHER = "hf:org/wax:Q4_K_M"


def two_nodes() -> FleetState:
    """Make a fleet of two workers of one model on a node, and one of another model on the other node."""
    fleet = FleetState(lambda: 0.0)
    for node in ("attic", "cellar"):
        fleet.add_node(node, f"http://{node}:9200")
    fleet.apply("attic", hello(link("a1"), link("a2")))
    fleet.apply("cellar", hello(link("c1", model=OTHER)).model_copy(update={"hive_id": "hive-2"}))
    return fleet


async def looks(*about: str, changes: list[tuple[str, HiveMessage]]) -> int:
    """Return how often somebody who waits for changes of *about* looks again while *changes* arrive one by one."""
    fleet, count = two_nodes(), 0

    def look() -> bool | None:
        nonlocal count
        count += 1
        return None

    waiting = asyncio.ensure_future(fleet.wait_for(look, *about))
    await asyncio.sleep(0)
    first = count
    for node, message in changes:
        fleet.apply(node, message)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return count - first


def test_who_waits_looks_again_only_when_something_of_his_has_changed() -> None:
    """Changes elsewhere, and heartbeats anywhere, wake nobody who says what he waits for."""
    busy = WorkerChanged(link=link("a1", state=WorkerState.BUSY, free=0))
    elsewhere = WorkerChanged(link=link("c1", model=OTHER, free=1))
    gone = WorkerGone(worker_id="a2", reason="ended")
    changes: list[tuple[str, HiveMessage]] = [
        ("attic", Heartbeat()),
        ("cellar", elsewhere),
        ("attic", busy),
        ("attic", gone),
    ]

    assert asyncio.run(looks("a1", changes=changes)) == 1
    assert asyncio.run(looks("a2", changes=changes)) == 1
    assert asyncio.run(looks(MODEL, changes=changes)) == 2
    assert asyncio.run(looks("cellar", changes=changes)) == 1
    assert asyncio.run(looks("hf:org/wax:Q4_K_M", MODEL, changes=changes)) == 3
    assert asyncio.run(looks(changes=changes)) == 3


def test_the_end_of_a_request_wakes_who_waits_for_its_model() -> None:
    """A slot of ours that is free again is a change of the worker's model."""

    async def freed() -> bool:
        fleet = two_nodes()
        with fleet.track_in_flight("a1"):
            looks = iter((None, True))
            waiting = asyncio.ensure_future(fleet.wait_for(lambda: next(looks), MODEL))
            await asyncio.sleep(0)
            assert not waiting.done()
        return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(freed())


def holder(fleet: FleetState) -> str:
    """Return the worker that gets a prompt which goes on from `PROMPT`."""
    decision = fleet.place(PlacementRequest(MODEL, prefix_hashes=(*PROMPT, 99)))
    assert isinstance(decision, UseWorker)
    return decision.link.worker.worker_id


def test_what_a_worker_has_read_outlives_a_silence_of_its_hive_but_not_the_worker() -> None:
    """The workers of a hive that falls silent may come back as they were; what ends takes its conversations along."""
    fleet = two_nodes()
    a2 = link("a2").worker
    fleet.record_prompt(a2, PlacementRequest(MODEL, prefix_hashes=PROMPT))
    assert holder(fleet) == "a2"

    fleet.lost("attic", "no message for 10 s")
    fleet.apply("cellar", hello(link("c1", model=OTHER)).model_copy(update={"hive_id": "hive-2"}))
    fleet.apply("attic", hello(link("a1"), link("a2")))
    assert holder(fleet) == "a2"

    fleet.lost("attic", "its hive closed the channel", ended=True)
    fleet.record_prompt(a2, PlacementRequest(MODEL, prefix_hashes=PROMPT))  # its last answer ends a moment later
    fleet.apply("attic", hello(link("a1"), link("a2")))
    assert holder(fleet) == "a1"


def test_what_another_queen_has_declared_has_no_name_here() -> None:
    """A worker under a name of another queen serves requests for its model, and none for what is declared so here."""
    fleet = FleetState(lambda: 0.0, queen="queen-1")
    fleet.add_node("attic", "http://attic:9200")
    fleet.apply("attic", hello(link("own", served="chat", declared_by="queen-1")))
    fleet.apply("attic", WorkerChanged(link=link("foreign", model=OTHER, served="chat", declared_by="queen-2")))

    assert [filed.link.worker.worker_id for filed in fleet.registry.index.of(["chat"])] == ["own"]
    decision = fleet.place(PlacementRequest(OTHER))
    assert isinstance(decision, UseWorker)
    assert decision.link.worker.worker_id == "foreign"
