"""What the keeper last saw of each machine: no truth, only what to show while no queen runs to ask.

It also carries what a survey found out from `config set-ssh` to the next start of a queen.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from rbee.config.paths import Paths, storage_error

Seen = dict[str, Any]
_KEPT = ("backends", "devices", "last_connected_unix")


class FleetCache:
    """One small file below the home; one that is missing or broken is as good as empty."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._file = paths.run / "machines.json"

    def read(self) -> dict[str, Seen]:
        """Return what is remembered, by node."""
        try:
            kept = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return {str(node): seen for node, seen in kept.items() if isinstance(seen, dict)}

    def update(self, rows: dict[str, Seen]) -> None:
        """Remember what is known of some nodes; what is not known of them stays."""
        kept = self.read()
        before = json.dumps(kept)
        for node, row in rows.items():
            kept[node] = {**kept.get(node, {}), **{key: row[key] for key in _KEPT if row.get(key)}}
        if json.dumps(kept) != before:
            self._write(kept)

    def remove(self, node: str) -> None:
        """Forget a node."""
        kept = self.read()
        if kept.pop(node, None) is not None:
            self._write(kept)

    def _write(self, kept: dict[str, Seen]) -> None:
        self._paths.make(self._file.parent)
        try:
            handle, name = tempfile.mkstemp(dir=self._file.parent, prefix=f".{self._file.name}.")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(kept, file)
            Path(name).replace(self._file)
        except OSError as error:
            raise storage_error(error, self._file) from error
