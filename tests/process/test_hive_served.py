"""Workers of declared models at their hive: how long they stay, and who joins which."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.hives import StartHive
from tests.support.waiting import slowness

pytestmark = pytest.mark.process


def test_a_worker_stays_for_as_long_as_it_is_to_be_kept(start_hive: StartHive, model: str) -> None:
    """The time of its request goes before that of the hive: a moment, for good, or what the hive says."""
    # In it the worker that is started last has to come up and to be stopped.
    hive = start_hive(idle_timeout_s=2 * slowness())
    with hive.queen() as queen:
        kept = hive.spawn(model, keep="always")["worker"]
        usual = hive.spawn(model)["worker"]
        hive.serving(usual["worker_id"])
        soon = hive.spawn(model, keep=0.1)["worker"]
        gone = [queen.until("worker_gone").worker_id for _ in range(2)]

        assert gone == [soon["worker_id"], usual["worker_id"]]
        assert [(row["worker_id"], row["keep"]) for row in hive.workers()] == [(kept["worker_id"], "always")]


def test_a_worker_of_a_declared_model_is_joined_for_that_only(start_hive: StartHive, model: str) -> None:
    """Who starts one for a declaration joins a worker of the same revision; who names none, a worker without one."""
    hive = start_hive(env={"STAND_IN_LOAD_S": "5"})

    def start(served: str | None = None, revision: str | None = None) -> str:
        worker = hive.spawn(model, join=True, served=served, revision=revision)["worker"]
        assert (worker["served"], worker["revision"]) == (served, revision)
        return str(worker["worker_id"])

    bare, mine, newer, other = start(), start("mine", "1"), start("mine", "2"), start("other", "1")

    assert len({bare, mine, newer, other}) == 4
    assert (start(), start("mine", "1"), start("mine", "2"), start("other", "1")) == (bare, mine, newer, other)


def test_a_worker_tells_what_its_memory_is_for(start_hive: StartHive, model: str) -> None:
    """The weights are as large as the file, the cache as large as all slots' contexts: twice the slots, twice that."""
    hive = start_hive()
    one, two = (hive.spawn(model, slots=slots, context_length=512)["worker"] for slots in (1, 2))
    assert one["weights_bytes"] == Path(model.removeprefix("file://")).stat().st_size
    assert one["cache_bytes"] > 0
    assert two["cache_bytes"] == 2 * one["cache_bytes"]
    assert two["weights_bytes"] + two["cache_bytes"] < two["need_bytes"]


def test_what_a_worker_would_take_is_estimated_without_one(start_hive: StartHive, model: str) -> None:
    """A model of the catalog has its need told for each backend, by its options; another one is not fetched for it."""
    hive = start_hive()
    assert hive.refused("/v1/workers/estimate", {"model": model})["code"] == "MODEL_NOT_FOUND"
    started = hive.spawn(model)["worker"]

    usual = hive.post("/v1/workers/estimate", {"model": model})["need_bytes"]
    more = hive.post("/v1/workers/estimate", {"model": model, "slots": 64, "context_length": 64})["need_bytes"]

    assert usual["cpu"] == started["need_bytes"]
    assert more["cpu"] > usual["cpu"]
    assert [row["worker_id"] for row in hive.workers()] == [started["worker_id"]]
