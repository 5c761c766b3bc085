"""How idle workers give way to another model."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError
from rbee.queen.fleet.control_channels import ControlChannels
from rbee.queen.fleet.eviction import evict
from rbee.queen.fleet.state import FleetState
from rbee.queen.progress import ProgressFeed
from rbee.queen.scheduling.placement import SpawnWorker
from tests.unit.queen.fleet import hello, link

SITE = SpawnWorker("attic", Backend.CPU, 0, model_present=True, evict=("w1",))


class Refusing:
    """Channels to hives that refuse to stop a worker."""

    def __init__(self, code: ErrorCode) -> None:
        self._code = code

    def client(self, _node: str) -> Refusing:
        return self

    async def stop(self, worker_id: str) -> None:
        raise RbeeError(self._code, f"Not {worker_id}.")


def evict_from(channels: Refusing) -> None:
    fleet = FleetState(lambda: 0.0)
    fleet.add_node("attic", "http://attic:9200")
    fleet.apply("attic", hello(link("w1")))
    asyncio.run(evict(fleet, cast("ControlChannels", channels), ProgressFeed(), SITE, "other"))


def test_a_worker_that_ends_by_itself_meanwhile_has_given_way() -> None:
    """Its hive does not know it any more, which is what was wanted; any other refusal ends the start."""
    evict_from(Refusing(ErrorCode.WORKER_NOT_FOUND))
    with pytest.raises(RbeeError) as refused:
        evict_from(Refusing(ErrorCode.CONNECTION_TIMEOUT))
    assert refused.value.code is ErrorCode.CONNECTION_TIMEOUT
