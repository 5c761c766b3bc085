"""Keep the node registry and the keys of its hives on disk.

Keys of hives are not in the database: they are files of mode 0600 below `secrets/hives`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.config.credentials import read_key, store_key
from rbee.config.paths import Paths
from rbee.contracts.devices import Detection
from rbee.contracts.errors import ErrorCode
from rbee.contracts.hives import NodeInfo, NodeSpec
from rbee.errors import RbeeError
from rbee.queen.database import Database

if TYPE_CHECKING:
    from rbee.queen.fleet.node_table import NodeTable


class NodeStore:
    """The node registry; without a database it is empty."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, spec: NodeSpec) -> NodeInfo:
        """Add a node; with `spec.replace` change one that is there. Raises RbeeError NODE_EXISTS."""
        return await (await self._table()).add(spec)

    async def remove(self, node: str) -> None:
        """Remove a node. Raises RbeeError NODE_NOT_FOUND."""
        if self._database.opened is None:
            raise RbeeError(ErrorCode.NODE_NOT_FOUND, f"There is no node named {node}.")
        await (await self._table()).remove(node)

    async def list(self) -> list[NodeInfo]:
        """List the nodes by name."""
        return [] if self._database.opened is None else await (await self._table()).list()

    async def record_reached(self, node: str, detection: Detection, *, now: float) -> None:
        """Record that the hive of *node* was reached; a node that is not registered is ignored."""
        if self._database.opened is not None:
            await (await self._table()).record_reached(node, detection, now=now)

    async def record_lost(self, node: str, reason: str) -> None:
        """Record that the hive of *node* cannot be reached, and why."""
        if self._database.opened is not None:
            await (await self._table()).record_lost(node, reason)

    async def _table(self) -> NodeTable:
        from rbee.queen.fleet.node_table import NodeTable

        return NodeTable(await self._database.require())


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
