"""What is waited for after a hive's receipt: that it has told its queen the same over its channel."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from rbee.contracts.control import HiveMessage, WorkerGone, YieldedChanged
from rbee.contracts.devices import Backend, YieldedDevice
from rbee.queen.fleet import heard
from rbee.queen.fleet.state import FleetState
from tests.unit.queen.fleet import hello, link

CPU = (Backend.CPU, 0)
YIELDED = YieldedChanged(yielded=[YieldedDevice(backend=Backend.CPU, device=0, since_unix=1.0)])
TOLD: dict[str, HiveMessage] = {
    "end": WorkerGone(worker_id="w1", reason="asked to"),
    "yield": YIELDED,
    "resume": YieldedChanged(yielded=[]),
}


def fleet_of_one() -> FleetState:
    fleet = FleetState(lambda: 0.0)
    fleet.add_node("attic", "http://attic:9200")
    fleet.apply("attic", hello(link("w1")))
    return fleet


async def answered(waiting: Coroutine[Any, Any, None]) -> tuple[asyncio.Task[None], bool]:
    """Begin to wait; give that, and whether it has ended by itself."""
    meeting = asyncio.ensure_future(waiting)
    for _ in range(5):
        await asyncio.sleep(0)
    return meeting, meeting.done()


@pytest.mark.parametrize("kind", ["end", "yield", "resume"])
def test_a_receipt_waits_for_the_channel(kind: str) -> None:
    """It is handed on once the worker is gone, or the device yielded or resumed, for the queen too; then at once."""

    async def run() -> list[bool]:
        fleet = fleet_of_one()
        if kind == "resume":
            fleet.apply("attic", YIELDED)

        def waiting() -> Coroutine[Any, Any, None]:
            if kind == "end":
                return heard.hear_of_ends(fleet, ["w1", "w2"])
            return heard.hear_of_yields(fleet, "attic", [CPU], yielded=kind == "yield")

        meeting, early = await answered(waiting())
        fleet.apply("attic", TOLD[kind])
        await asyncio.wait_for(meeting, 5)
        _, at_once = await answered(waiting())
        return [early, at_once]

    assert asyncio.run(run()) == [False, True]


def test_a_receipt_waits_for_no_hive_that_is_lost_and_for_none_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a hive does not tell holds nobody up for long."""
    monkeypatch.setattr(heard, "HEARD_WITHIN_S", 0.05)

    async def run() -> bool:
        fleet = fleet_of_one()
        await asyncio.wait_for(heard.hear_of_ends(fleet, ["w1"]), 5)
        fleet.lost("attic", "its cable was cut")
        _, at_once = await answered(heard.hear_of_yields(fleet, "attic", [CPU], yielded=True))
        return at_once

    assert asyncio.run(run())
