"""Several hives of one queen, which copy models from each other."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from pytest_bdd import given, parsers, then, when

from tests.bdd.steps.hub import FILE, REPO
from tests.support.commands import Result
from tests.support.hub import Hub
from tests.support.machine import Machine
from tests.support.neighbours import Neighbours
from tests.support.waiting import eventually


@pytest.fixture
def neighbours(machine: Machine, hub: Hub) -> Iterator[Neighbours]:
    neighbours = Neighbours(machine, hub)
    yield neighbours
    neighbours.close()


def named(text: str) -> list[str]:
    return re.split(r", | and ", text)


@given(parsers.re(r"a queen with the hives (?P<nodes>.+)"))
def several_hives(neighbours: Neighbours, nodes: str) -> None:
    for node in named(nodes):
        neighbours.add(node)


@given(parsers.re(r"(?P<node>h\d) sends (?P<rate>\d+) megabits per second"))
def neighbour_sends_slowly(neighbours: Neighbours, node: str, rate: str) -> None:
    neighbours.restart(node, share_mbps=rate)


@given(parsers.parse("the hub's model was pulled to {node}"))
def pulled_to(neighbours: Neighbours, node: str) -> None:
    neighbours.pull(node, f"hf:{REPO}").ended_well()


@given(parsers.parse("a bit of the file of {node} has changed"))
def bit_changed(neighbours: Neighbours, node: str) -> None:
    neighbours.flip_bit(node)


@when(parsers.re(r"operators pull the hub's model to (?P<nodes>.+) at once"), target_fixture="results")
def pulled_at_once(machine: Machine, neighbours: Neighbours, nodes: str) -> list[Result]:
    running = [machine.start("rbee-keeper", "models", "pull", "--node", node, f"hf:{REPO}") for node in named(nodes)]
    return [each.wait(90) for each in running]


@when(parsers.parse("{percent:d} percent of it have arrived at {node}"))
def arrived(machine: Machine, neighbours: Neighbours, percent: int, node: str) -> None:
    size = (machine.root / "on-the-hub.gguf").stat().st_size
    eventually(
        lambda: neighbours.received(node) >= size * percent / 100, within=30, because=f"{percent} % are at {node}"
    )


@when(parsers.re(r"(?P<node>h\d) is killed"))
def neighbour_killed(neighbours: Neighbours, node: str) -> None:
    neighbours.hives[node].kill()


@then("all exit codes are 0")
def all_done(results: list[Result]) -> None:
    for result in results:
        assert result.code == 0, result


@then("two of them were told who fetches it, and copied it from another hive")
def two_copied(results: list[Result]) -> None:
    waited = [result for result in results if re.search(r"h\d fetches it; it comes from there", result.stderr)]
    assert len(waited) == 2, results
    for result in waited:
        assert re.search(r"copying it from h\d", result.stderr), result


@then(parsers.re(r"(?P<nodes>h\d.*) (has|have) the file of the hub"))
def have_file(machine: Machine, neighbours: Neighbours, nodes: str) -> None:
    for node in named(nodes):
        (file,) = neighbours.files(node)
        assert file.name == FILE
        assert file.read_bytes() == (machine.root / "on-the-hub.gguf").read_bytes()
