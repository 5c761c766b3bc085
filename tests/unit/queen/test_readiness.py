"""What is waited for before a task is placed: hives that have not said yet which models they have."""

from __future__ import annotations

import asyncio

import pytest

from rbee.contracts.control import ModelsChanged
from rbee.queen.fleet.readiness import Readiness
from rbee.queen.fleet.state import FleetState
from rbee.queen.scheduling.placement import PlacementRequest
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


def test_a_hive_that_starts_again_keeps_its_models_until_it_says_otherwise() -> None:
    """A hello without models does not take away those that are known."""
    fleet = fleet_of("attic")
    fleet.apply("attic", ModelsChanged(models=[entry(MODEL)]))

    fleet.apply("attic", hello().model_copy(update={"models": None}))

    hive = fleet.registry.hive("attic")
    assert hive is not None
    assert [one.reference for one in hive.models] == [MODEL]
    assert not hive.listed
