"""Keep the node registry and the keys of its hives on disk.

A home in which no node was ever registered has no database, and a queen that needs none does not load SQLAlchemy,
which takes as long as the rest of its start together.
Keys are not in the database: they are files of mode 0600 below `secrets/hives`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rbee.config.credentials import read_key, store_key
from rbee.config.paths import Paths
from rbee.contracts.devices import Detection
from rbee.contracts.errors import ErrorCode
from rbee.contracts.hives import NodeInfo, NodeSpec
from rbee.errors import RbeeError

if TYPE_CHECKING:
    from rbee.queen.fleet.node_table import NodeTable


class NodeStore:
    """The node registry.

    Args:
        database_url: any URL of SQLAlchemy; None means `beehives.db` in the home.
    """

    def __init__(self, database_url: str | None, paths: Paths) -> None:
        self._database_url = database_url
        self._file = paths.home / "beehives.db"
        self._table: NodeTable | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """Open the database if there is one.

        Raises RbeeError STATE_CORRUPT for a broken one, ConfigError for a URL that cannot be used.
        """
        if self._database_url is not None or self._file.exists():
            await self._ensure_open()

    async def close(self) -> None:
        """Close it."""
        if self._table is not None:
            await self._table.close()

    async def add(self, spec: NodeSpec) -> NodeInfo:
        """Add a node; with `spec.replace` change one that is there. Raises RbeeError NODE_EXISTS."""
        return await (await self._ensure_open()).add(spec)

    async def remove(self, node: str) -> None:
        """Remove a node. Raises RbeeError NODE_NOT_FOUND."""
        if self._table is None:
            raise RbeeError(ErrorCode.NODE_NOT_FOUND, f"There is no node named {node}.")
        await self._table.remove(node)

    async def list(self) -> list[NodeInfo]:
        """List the nodes by name."""
        return [] if self._table is None else await self._table.list()

    async def record_reached(self, node: str, detection: Detection, *, now: float) -> None:
        """Record that the hive of *node* was reached; a node that is not registered is ignored."""
        if self._table is not None:
            await self._table.record_reached(node, detection, now=now)

    async def record_lost(self, node: str, reason: str) -> None:
        """Record that the hive of *node* cannot be reached, and why."""
        if self._table is not None:
            await self._table.record_lost(node, reason)

    async def _ensure_open(self) -> NodeTable:
        async with self._opening:
            if self._table is None:
                from rbee.queen.fleet.node_table import NodeTable

                url = self._database_url
                table = NodeTable.in_file(self._file) if url is None else NodeTable.at(url)
                try:
                    await table.open()
                except RbeeError:
                    await table.close()
                    raise
                self._table = table
        return self._table


class HiveKeys:
    """The keys of hives, one file a node."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._folder = paths.secrets / "hives"

    def read(self, node: str) -> str | None:
        """Return the key of *node*'s hive. Raises ConfigError for a file that others can read."""
        path = self._folder / node
        return read_key(path) if path.exists() else None

    def write(self, node: str, key: str) -> None:
        """Write the key of *node*'s hive, mode 0600."""
        self._paths.make(self._folder)
        store_key(self._folder / node, key, replace=True)

    def remove(self, node: str) -> None:
        """Remove the key of *node*'s hive."""
        (self._folder / node).unlink(missing_ok=True)
