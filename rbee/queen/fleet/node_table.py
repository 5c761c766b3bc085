"""Keep the nodes in the table `beehives`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete as delete_from
from sqlalchemy import select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from rbee.contracts.devices import Detection
from rbee.contracts.errors import ErrorCode
from rbee.contracts.hives import NodeInfo, NodeSpec, NodeStatus
from rbee.errors import RbeeError
from rbee.queen.fleet.node_specs import check_new
from rbee.queen.sql import SqlDatabase
from rbee.queen.tables import BEEHIVES


class NodeTable:
    """Rows of nodes."""

    def __init__(self, sql: SqlDatabase) -> None:
        self._sql = sql

    async def add(self, specs: Sequence[NodeSpec]) -> list[NodeInfo]:
        """Add nodes in one transaction; with `replace` change those that are there. Raises RbeeError NODE_EXISTS."""
        rows = {spec.node_name: spec.model_dump(mode="json", exclude={"hive_key", "replace"}) for spec in specs}

        def work(connection: Connection) -> list[NodeInfo]:
            known = set(connection.execute(select(BEEHIVES.c.node_name)).scalars())
            check_new(specs, known)
            new = [{"status": NodeStatus.UNKNOWN.value, **row} for name, row in rows.items() if name not in known]
            if new:
                connection.execute(BEEHIVES.insert(), new)
            for name in rows.keys() & known:
                connection.execute(_row(name).values(**rows[name]))
            if len(rows) == 1:
                return [_info(connection.execute(_by_name(name)).one()) for name in rows]
            stored = {row.node_name: row for row in connection.execute(select(BEEHIVES))}
            return [_info(stored[name]) for name in rows]

        try:
            return await self._sql.run(work)
        except IntegrityError as error:  # another process was faster
            raise RbeeError(ErrorCode.NODE_EXISTS, "A node was added meanwhile by somebody else; try again.") from error

    async def remove(self, node: str) -> None:
        """Remove a node. Raises RbeeError NODE_NOT_FOUND."""
        done = await self._sql.run(
            lambda connection: connection.execute(delete_from(BEEHIVES).where(BEEHIVES.c.node_name == node)).rowcount
        )
        if not done:
            raise RbeeError(ErrorCode.NODE_NOT_FOUND, f"There is no node named {node}.")

    async def list(self, after: str, limit: int | None) -> list[NodeInfo]:
        """List the nodes by name, those after a name and at most so many."""
        wanted = select(BEEHIVES).where(BEEHIVES.c.node_name > after).order_by(BEEHIVES.c.node_name).limit(limit)
        return [_info(row) for row in await self._sql.run(lambda connection: connection.execute(wanted).all())]

    async def record_reached(self, node: str, detection: Detection, *, now: float) -> None:
        """Record that the hive of *node* said Hello; a node that is not registered is ignored."""
        await self._change(
            node,
            status=NodeStatus.REACHABLE.value,
            last_connected_unix=int(now),
            last_error=None,
            backends=[backend.value for backend in detection.backends],
            devices={backend.value: count for backend, count in detection.counts.items()},
        )

    async def record_lost(self, node: str, reason: str) -> None:
        """Record that the hive of *node* cannot be reached, and why."""
        await self._change(node, status=NodeStatus.UNREACHABLE.value, last_error=reason)

    async def _change(self, node: str, **values: Any) -> None:
        await self._sql.run(lambda connection: connection.execute(_row(node).values(**values)).rowcount)


def _by_name(node: str) -> Any:
    return select(BEEHIVES).where(BEEHIVES.c.node_name == node)


def _row(node: str) -> Any:
    return update(BEEHIVES).where(BEEHIVES.c.node_name == node)


def _info(row: Any) -> NodeInfo:
    return NodeInfo.model_validate(dict(row._mapping))  # noqa: SLF001 -- SQLAlchemy's public name for it
