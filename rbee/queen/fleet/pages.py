"""Cut the lists of a large fleet into pages, of which each is built, and written, without holding up everything else.

Pure. A page ends with what to ask the next one for: it follows the names of nodes and workers, so that hives that come
and go meanwhile neither shift nor double anything.
"""

from __future__ import annotations

from rbee.contracts.queen import FleetWorkerList, HiveList
from rbee.queen.hive import Hive
from rbee.queen.registry import Registry


def hive_page(registry: Registry, node: str | None, after: str, limit: int | None) -> HiveList:
    """List the hives by name, of all nodes or of one, those after a name and at most so many; None for all."""
    hives = registry.hives(after) if node is None else _only(registry, node)
    page = hives[:limit]
    more = len(hives) > len(page)
    return HiveList(hives=[hive.info() for hive in page], next=page[-1].node if more else None)


def worker_page(registry: Registry, node: str | None, after: str, limit: int | None) -> FleetWorkerList:
    """List workers by node and id, of all nodes or of one, with what is in quarantine and which hives do not answer.

    Args:
        after: the `next` of the page before: a node all of whose rows it had, or `NODE/WORKER`.
        limit: how many workers the page may have; a hive that has none counts as one. None for all.
    """
    after_node, _, after_worker = after.partition("/")
    page = FleetWorkerList(workers=[], quarantined=[], unreachable=[])
    left = limit
    done = after
    hives = registry.hives(after_node, inclusive=bool(after_worker)) if node is None else _only(registry, node)
    for hive in hives:
        if left == 0:
            page.next = done
            break
        begun = hive.node == after_node
        if not begun:
            page.quarantined += registry.quarantined(hive.node)
            page.unreachable += registry.unreachable(hive.node)
        workers = [hive.workers[each].worker for each in sorted(hive.workers) if not begun or each > after_worker]
        page.workers += workers[:left]
        if left is not None and len(workers) > left:
            page.next = f"{hive.node}/{workers[left - 1].worker_id}"
            break
        if left is not None:
            left = max(0, left - max(1, len(workers), len(hive.last_workers)))
        done = hive.node
    return page


def _only(registry: Registry, node: str) -> list[Hive]:
    hive = registry.hive(node)
    return [] if hive is None else [hive]
