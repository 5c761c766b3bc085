"""Remember what the keeper last saw of each machine, to show it while no queen runs.

It also carries the result of a survey from `config set-ssh` to the next start of a queen.
"""

from __future__ import annotations

import json
from typing import Any

from rbee.config.atomic_write import atomic_write
from rbee.config.paths import Paths

Seen = dict[str, Any]
_KEPT = ("backends", "devices", "last_connected_unix")


class FleetCache:
    """One small file below the home; a file that is missing or broken counts as empty."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._file = paths.run / "machines.json"

    def read(self) -> dict[str, Seen]:
        """Return what was last seen, by node."""
        try:
            kept = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {str(node): seen for node, seen in kept.items() if isinstance(seen, dict)}

    def update(self, rows: dict[str, Seen]) -> None:
        """Store what is known of some nodes; fields that a row leaves empty keep their value."""
        kept = self.read()
        before = json.dumps(kept)
        for node, row in rows.items():
            kept[node] = {**kept.get(node, {}), **{key: row[key] for key in _KEPT if row.get(key)}}
        if json.dumps(kept) != before:
            self._write(kept)

    def remove(self, node: str) -> None:
        """Remove a node."""
        kept = self.read()
        if kept.pop(node, None) is not None:
            self._write(kept)

    def _write(self, kept: dict[str, Seen]) -> None:
        self._paths.make(self._file.parent)
        atomic_write(self._file, json.dumps(kept), durable=False)
