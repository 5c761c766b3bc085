"""What is waited for before a task is placed: hives that have not said yet which models they have."""

from __future__ import annotations

import asyncio

import pytest

from rbee.contracts.control import ModelsChanged
from rbee.queen.fleet.readiness import Readiness
from rbee.queen.fleet.state import FleetState
from rbee.queen.scheduling.request import PlacementRequest
from tests.unit.queen.fleet import entry, hello, link

MODEL = "hf:bees/honey"


def fleet_of(*nodes: str) -> FleetState:
    """A fleet whose hives are connected and have not looked into their catalogs."""
    fleet = FleetState(lambda: 0.0)
    for node in nodes:
        fleet.add_node(node, f"http://{node}:9200")
        fleet.apply(node, hello().model_copy(update={"models": None, "hive_id": f"hive-of-{node}"}))
    return fleet


async def waits(fleet: FleetState, placement: PlacementRequest) -> bool:
    """Return whether *placement* waits until all hives have listed their models, and check that it waits no longer."""
    meeting = asyncio.ensure_future(Readiness(fleet, None, local_timeout_s=1).ensure(placement))
    _, waiting = await asyncio.wait({meeting}, timeout=0.05)
    for hive in fleet.registry.hives():
        fleet.apply(hive.node, ModelsChanged(models=[entry(MODEL)]))
    await asyncio.wait_for(meeting, 5)
    return bool(waiting)


@pytest.mark.parametrize(
    ("nodes", "placement", "waiting"),
    [
        (("attic", "cellar"), PlacementRequest(MODEL), True),
        (("attic",), PlacementRequest(MODEL), False),
        (("attic", "cellar"), PlacementRequest(MODEL, "attic"), False),
    ],
    ids=["one of two", "the only one", "the named one"],
)
def test_a_choice_waits_until_all_have_listed_their_models(
    nodes: tuple[str, ...], placement: PlacementRequest, waiting: bool
) -> None:
    """Where the model may decide the place, no hive is passed over because it has not looked yet."""
    assert asyncio.run(waits(fleet_of(*nodes), placement)) is waiting


def test_nobody_waits_for_lists_where_a_worker_has_the_model() -> None:
    """A hive that has just started holds up only who might need it."""
    fleet = fleet_of("attic", "cellar")
    serving = hello(link("worker-a", model=MODEL))
    fleet.apply("attic", serving.model_copy(update={"models": None, "hive_id": "hive-of-attic"}))

    assert asyncio.run(waits(fleet, PlacementRequest(MODEL))) is False
    assert asyncio.run(waits(fleet_of("attic", "cellar"), PlacementRequest("hf:bees/wax"))) is True


def test_a_machine_that_is_added_holds_up_no_request_that_a_worker_can_take() -> None:
    """While new nodes are dialled only what needs one of them waits, or what finds no free slot elsewhere."""

    async def waits_for_contact(placement: PlacementRequest, free: int) -> bool:
        fleet = fleet_of("attic")
        fleet.apply("attic", hello(link("worker-a", model=MODEL, free=free), models=[entry(MODEL)]))
        fleet.add_node("new", "http://new:9200")
        readiness = Readiness(fleet, None, local_timeout_s=1)
        assert readiness.is_settled(placement) is readiness.is_ready(placement)
        meeting = asyncio.ensure_future(readiness.ensure(placement))
        _, waiting = await asyncio.wait({meeting}, timeout=0.05)
        assert bool(waiting) is not readiness.is_settled(placement)
        fleet.lost("new", "no connection within 5 s")
        await asyncio.wait_for(meeting, 5)
        return bool(waiting)

    assert not asyncio.run(waits_for_contact(PlacementRequest(MODEL), free=1))
    assert asyncio.run(waits_for_contact(PlacementRequest(MODEL), free=0))
    assert asyncio.run(waits_for_contact(PlacementRequest("hf:bees/wax"), free=1))
    assert asyncio.run(waits_for_contact(PlacementRequest(MODEL, "new"), free=1))


def test_who_waits_goes_on_as_soon_as_a_worker_can_take_it() -> None:
    """The hive that has the worker answers: nobody waits for the others any longer."""

    async def answered_early() -> None:
        fleet = FleetState(lambda: 0.0)
        for node in ("attic", "cellar"):
            fleet.add_node(node, f"http://{node}:9200")
        meeting = asyncio.ensure_future(Readiness(fleet, None, local_timeout_s=1).ensure(PlacementRequest(MODEL)))
        await asyncio.wait({meeting}, timeout=0.05)
        assert not meeting.done()
        fleet.apply("attic", hello(link("worker-a", model=MODEL)))
        await asyncio.wait_for(meeting, 1)

    asyncio.run(answered_early())


def test_a_hive_that_starts_again_keeps_its_models_until_it_says_otherwise() -> None:
    """A hello without models does not take away those that are known."""
    fleet = fleet_of("attic")
    fleet.apply("attic", ModelsChanged(models=[entry(MODEL)]))

    fleet.apply("attic", hello().model_copy(update={"models": None}))

    hive = fleet.registry.hive("attic")
    assert hive is not None
    assert [one.reference for one in hive.models] == [MODEL]
    assert not hive.listed
