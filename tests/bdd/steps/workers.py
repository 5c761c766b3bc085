"""Workers, as the queen lists them."""

from __future__ import annotations

from typing import Any

from pytest_bdd import given, parsers, then, when

from tests.support.commands import Result
from tests.support.machine import Machine
from tests.support.waiting import eventually


def listed(machine: Machine) -> list[dict[str, Any]]:
    result = machine.run("rbee-keeper", "worker", "list", "--json")
    assert result.code == 0, result
    workers: list[dict[str, Any]] = result.json["workers"]
    return workers


@given('a worker for "demo" on localhost', target_fixture="before")
@given("a worker for bee on localhost", target_fixture="before")
@when("a worker is started for bee on localhost")
def started(machine: Machine, model: str) -> set[int]:
    result = machine.run("rbee-keeper", "worker", "start", "--node", "localhost", "--model", model)
    assert result.code == 0, result
    eventually(lambda: [w["state"] for w in listed(machine)] == ["idle"], within=10, because="the worker is idle")
    return {process.pid for process in machine.processes() if "rbee-keeper" not in " ".join(process.cmdline())}


@then(parsers.parse("there is {count:d} worker"))
def worker_count(machine: Machine, count: int) -> None:
    assert len(listed(machine)) == count


@then(parsers.parse("there are no workers within {seconds:d} seconds"))
def no_workers(machine: Machine, seconds: int) -> None:
    eventually(lambda: not listed(machine), within=seconds, because="the list of workers is empty")


@then(parsers.parse("no device is yielded within {seconds:d} seconds"))
def nothing_yielded(machine: Machine, seconds: int) -> None:
    def yielded() -> list[dict[str, Any]]:
        result = machine.run("rbee-keeper", "hive", "status", "--node", "localhost", "--json")
        assert result.code == 0, result
        devices: list[dict[str, Any]] = result.json["hives"][0]["yielded"]
        return devices

    eventually(lambda: not yielded(), within=seconds, because="every device is used again")


@then(parsers.parse("every slot is free within {seconds:d} seconds"))
def slots_free(machine: Machine, seconds: int) -> None:
    eventually(
        lambda: [(w["state"], w["slots_available"]) for w in listed(machine)] == [("idle", 4)],
        within=seconds,
        because="the worker is idle with all slots",
    )


@then(parsers.parse("the worker is shown as idle with {free:d} of {total:d} slots free"))
def health_row(result: Result, free: int, total: int) -> None:
    (row,) = result.json["workers"]
    health = row["health"]
    assert (health["state"], health["slots_available"], health["slots_total"]) == ("idle", free, total)


@then("the hive's log reports the end of the worker")
def hive_log_end(machine: Machine) -> None:
    eventually(
        lambda: "its process ended by signal 9" in machine.log("rbee-hive.log"),
        within=5,
        because="the hive logged the worker's end",
    )


@then(parsers.parse("the hive's log reports {count:d} missed health checks"))
def hive_log_missed(machine: Machine, count: int) -> None:
    assert machine.log("rbee-hive.log").count('"health check missed"') >= count
