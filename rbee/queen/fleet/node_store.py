"""Keep the node registry and the keys of its hives on disk.

Keys of hives are not in the database: they are files of mode 0600 below `secrets/hives`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rbee.config.credentials import read_key, store_key
from rbee.config.paths import Paths
from rbee.contracts.devices import Detection
from rbee.contracts.errors import ErrorCode
from rbee.contracts.hives import NodeInfo, NodeSpec
from rbee.errors import RbeeError
from rbee.queen.database import Database

WRITES_AT_ONCE = 32

if TYPE_CHECKING:
    from rbee.queen.fleet.node_table import NodeTable


class NodeStore:
    """The node registry; without a database it is empty."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, specs: Sequence[NodeSpec]) -> list[NodeInfo]:
        """Add nodes, all or none; with `replace` change those that are there. Raises RbeeError NODE_EXISTS."""
        return await (await self._table()).add(specs)

    async def remove(self, node: str) -> None:
        """Remove a node. Raises RbeeError NODE_NOT_FOUND."""
        if self._database.opened is None:
            raise RbeeError(ErrorCode.NODE_NOT_FOUND, f"There is no node named {node}.")
        await (await self._table()).remove(node)

    async def list(self, after: str = "", limit: int | None = None) -> list[NodeInfo]:
        """List the nodes by name, those after a name and at most so many."""
        return [] if self._database.opened is None else await (await self._table()).list(after, limit)

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

    def read(self, nodes: Iterable[str]) -> dict[str, str]:
        """Return the keys of the hives of *nodes* that have one. Raises ConfigError for a file that others can read."""
        paths = {node: self._folder / node for node in nodes}
        return {node: read_key(path) for node, path in paths.items() if path.exists()}

    def write(self, keys: Mapping[str, str]) -> None:
        """Write the keys of hives by their nodes, mode 0600."""
        if keys:
            self._paths.make(self._folder)
        # Each waits until it is on disk, which takes hardly longer for several at once.
        with ThreadPoolExecutor(WRITES_AT_ONCE) as pool:
            list(pool.map(lambda node: store_key(self._folder / node, keys[node], replace=True), keys))

    def remove(self, node: str) -> None:
        """Remove the key of *node*'s hive."""
        (self._folder / node).unlink(missing_ok=True)
