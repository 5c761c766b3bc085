"""Merge the catalogs of nodes into one list, in which each model is one row. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from rbee.contracts.models import CatalogEntry
from rbee.contracts.queen import FleetModel, FleetModelList, ModelCopy, ModelList, NodeDownload


def merge(lists: Mapping[str, ModelList]) -> FleetModelList:
    """Return the models and downloads of nodes, sorted by reference, each model with the nodes that have it.

    Copies of the same reference whose bytes are known to differ are models of their own.
    """
    copies: defaultdict[tuple[str, str, int], list[tuple[str, CatalogEntry]]] = defaultdict(list)
    for node, listed in lists.items():
        for entry in listed.models:
            copies[entry.reference, entry.sha256 or "", entry.size_bytes].append((node, entry))
    return FleetModelList(
        models=[_row(found) for _, found in sorted(copies.items())],
        downloads=[
            NodeDownload(node=node, **download.model_dump())
            for node, listed in lists.items()
            for download in listed.downloads
        ],
    )


def _row(found: list[tuple[str, CatalogEntry]]) -> FleetModel:
    """Return the row of a model from its copies, by node; it has a problem where each of them has one."""
    entry = next((entry for _, entry in found if entry.problem is None), found[0][1])
    nodes = [
        ModelCopy(
            node=node,
            local_path=copy.local_path,
            downloaded_at_unix=copy.downloaded_at_unix,
            problem=copy.problem,
        )
        for node, copy in found
    ]
    return FleetModel(**entry.model_dump(), nodes=nodes)
