"""Lists in pages: all rows once, in order, whatever the size of a page."""

from __future__ import annotations

import pytest

from rbee.contracts.queen import FleetWorkerList
from rbee.contracts.workers import Quarantine
from rbee.queen.fleet.pages import hive_page, worker_page
from rbee.queen.registry import Registry
from tests.unit.queen.fleet import hello, link


def registry() -> Registry:
    """Make hives with 3, 0, 2 and 1 workers, one that is lost with 2 workers, and one that never answered."""
    made = Registry()
    for number, workers in enumerate((3, 0, 2, 1)):
        node = f"n{number}"
        first = hello(*(link(f"w{number}-{each}") for each in range(workers)))
        barred = Quarantine(model_ref="hf:a/b", crashes=3, reason="it crashed", until_unix=9.0)
        made.add_node(node, f"http://{node}:9200")
        made.apply(node, first.model_copy(update={"hive_id": node, "quarantined": [barred]}), now=1.0)
    for node in ("n4", "n5"):
        made.add_node(node, f"http://{node}:9200")
    made.apply("n4", hello(link("w4-0"), link("w4-1")).model_copy(update={"hive_id": "n4"}), now=1.0)
    made.lost("n4", "the cable was pulled")
    return made


def pages(made: Registry, limit: int) -> list[FleetWorkerList]:
    found, after = [], ""
    while True:
        found.append(worker_page(made, None, after, limit))
        if found[-1].next is None:
            return found
        after = found[-1].next


@pytest.mark.parametrize("limit", range(1, 9))
def test_pages_of_workers_have_every_row_once(limit: int) -> None:
    """Together they are the whole list, with what is in quarantine and who does not answer; none is too long."""
    made = registry()
    whole = worker_page(made, None, "", None)

    found = pages(made, limit)

    assert whole.next is None
    assert [worker for page in found for worker in page.workers] == whole.workers == made.workers()
    assert [row for page in found for row in page.quarantined] == whole.quarantined == made.quarantined()
    assert [row for page in found for row in page.unreachable] == whole.unreachable == made.unreachable()
    assert max(len(page.workers) for page in found) <= limit
    assert len(found) <= 10 / limit + 2


def test_a_page_goes_on_where_it_was_although_the_fleet_has_changed() -> None:
    """Nodes that come and go between two pages neither shift nor double a row; one node has pages too."""
    made = registry()
    first = worker_page(made, None, "", 4)
    assert first.next == "n1"

    made.remove_node("n0")
    made.add_node("a-new-one", "http://new:9200")
    rest = worker_page(made, None, "n2/w2-0", None)

    assert [worker.worker_id for worker in rest.workers] == ["w2-1", "w3-0"]
    assert [worker.worker_id for worker in worker_page(made, "n2", "", 1).workers] == ["w2-0"]
    assert worker_page(made, "nowhere", "", 1).workers == []


@pytest.mark.parametrize("limit", [1, 2, 5, 6, 7])
def test_pages_of_hives_have_every_hive_once(limit: int) -> None:
    """The last page says that nothing follows."""
    made = registry()
    names, after = [], ""
    while True:
        page = hive_page(made, None, after, limit)
        names += [hive.node for hive in page.hives]
        assert len(page.hives) <= limit
        if page.next is None:
            break
        after = page.next

    assert names == [hive.node for hive in made.hives()]
    assert [hive.node for hive in hive_page(made, "n2", "", 1).hives] == ["n2"]
    assert hive_page(made, "nowhere", "", None).hives == []
