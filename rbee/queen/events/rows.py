"""Encode what is known of the fleet as the rows that readers of events are sent. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from pydantic import BaseModel

from rbee.contracts.queen import NodeDownload
from rbee.queen.events.change_log import ChangeLog, Key
from rbee.queen.hive import Hive
from rbee.queen.registry import Registry


def fleet_rows(registry: Registry, log: ChangeLog, names: Iterable[str]) -> dict[Key, bytes | None]:
    """Return the rows of nodes and workers of these names, None for those of *log* that are gone."""
    rows: dict[Key, bytes | None] = {}
    for name in names:
        node, catalog, worker = Key("node", name), Key("catalog", name), Key("worker", name)
        hive, link = registry.hive(name), registry.worker(name)
        if hive is not None or node in log:
            rows[node] = None if hive is None else _node(hive)
            rows[catalog] = None if hive is None else _catalog(hive)
        if link is not None or worker in log:
            rows[worker] = None if link is None else encode(link.worker)
    return rows


def whole(log: ChangeLog, kind: str, rows: Mapping[str, BaseModel]) -> dict[Key, bytes | None]:
    """Return all rows of a kind as they are now, by id, with None for those of *log* that are gone."""
    now: dict[Key, bytes | None] = {Key(kind, id_): encode(row) for id_, row in rows.items()}
    return dict.fromkeys(log.keys(kind)) | now


def encode(row: BaseModel) -> bytes:
    """Encode a row."""
    return row.model_dump_json(exclude_none=True).encode()


def download_id(download: NodeDownload) -> str:
    """Return the id of a download's row."""
    return f"{download.node} {download.reference}"


def _node(hive: Hive) -> bytes:
    # When a hive was last heard of says something of one that is silent; of another it would be a change a second.
    seen = None if hive.connected else hive.last_seen
    info = replace(hive, models=(), workers={}, last_seen=seen).info()
    return info.model_dump_json(exclude={"models", "workers"}, exclude_none=True).encode()


def _catalog(hive: Hive) -> bytes:
    return b"[" + b", ".join(map(encode, hive.models)) + b"]"
