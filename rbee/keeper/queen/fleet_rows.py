"""The fleet as the queen's events report it, and what follows for display: memory of devices, pace. Pure.

The rows are plain JSON; `contracts.events` says what they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rbee.client.event import Event

Row = dict[str, Any]


@dataclass(slots=True)
class FleetRows:
    """All rows by kind and id; `complete` once the snapshot of the present connection has come whole."""

    complete: bool = False
    _rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    _replaced: bool = False

    def reconnect(self) -> None:
        """Expect a snapshot, which takes the place of what is known."""
        self.complete, self._replaced = False, True

    def apply(self, event: Event) -> None:
        """Follow one event."""
        if event.name == "complete":
            self.complete = True
            return
        if event.name == "snapshot" and self._replaced:
            self._rows.clear()
            self._replaced = False
        for change in event.data.get("changes", ()):
            rows = self._rows.setdefault(change["kind"], {})
            if change["row"] is None:
                rows.pop(change["id"], None)
            else:
                rows[change["id"]] = change["row"]

    def of(self, kind: str) -> list[Row]:
        """List the rows of a kind by id, those that tell of requests in the order of their arrival."""
        rows = self._rows.get(kind, {})
        if kind == "task":
            return sorted(rows.values(), key=lambda row: float(row["arrived_unix"]))
        return [rows[id_] for id_ in sorted(rows)]


@dataclass(frozen=True, slots=True)
class DeviceUse:
    """The memory of one device in bytes: what each worker takes, by the name of its model, what others do, the rest."""

    node: str
    label: str
    total: int
    workers: tuple[tuple[str, int], ...]
    foreign: int
    free: int
    note: str


def devices(rows: FleetRows) -> Iterator[DeviceUse]:
    """Yield the devices of the machines that are connected."""
    workers = rows.of("worker")
    for node in rows.of("node"):
        yielded = {(each["backend"], each["device"]) for each in node.get("yielded", ())}
        for device in node.get("devices", ()) if node["connected"] else ():
            at = (device["backend"], device["index"])
            here = [
                each for each in workers if each["node"] == node["node"] and (each["backend"], each["device"]) == at
            ]
            taken = tuple(
                (name_of(each), int(each.get("memory_bytes") or each.get("need_bytes") or 0)) for each in here
            )
            total, free = int(device["total_bytes"]), int(device["free_bytes"])
            foreign = max(int(device.get("foreign_bytes", 0)), total - free - sum(size for _, size in taken), 0)
            note = "yielded to another program" if at in yielded else ""
            yield DeviceUse(node["node"], f"{at[0]}:{at[1]}", total, taken, foreign, free, note)


def name_of(worker: Row) -> str:
    """Return what people call the model of a worker: its declared name, or the last part of its reference."""
    return str(worker.get("served") or short_name(str(worker["model_ref"])))


def short_name(reference: str) -> str:
    """Return the last part of a reference."""
    return reference.rstrip("/").rpartition("/")[2] or reference


def tokens_per_s(task: Row, now_unix: float) -> float | None:
    """Return the pace of an answer after its first token."""
    first = task.get("first_token_s")
    took = now_unix - task["arrived_unix"] if task["state"] == "running" else task.get("took_s")
    if first is None or took is None or took <= first or task["tokens"] < 2:
        return None
    return float((task["tokens"] - 1) / (took - first))


def shares(parts: list[int], total: int, cells: int) -> list[int]:
    """Return how many of *cells* each part of *total* gets: what is there gets one at least, and all fit together."""
    found = [min(cells, max(1, round(part * cells / total))) if part > 0 and total > 0 else 0 for part in parts]
    while sum(found) > cells:
        largest = max(range(len(found)), key=found.__getitem__)
        found[largest] -= 1
    return found
