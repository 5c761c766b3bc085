"""Keep the nodes in the table `beehives`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete as delete_from
from sqlalchemy import select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from rbee.contracts.devices import Detection
from rbee.contracts.errors import ErrorCode
from rbee.contracts.hives import NodeInfo, NodeSpec, NodeStatus
from rbee.errors import RbeeError
from rbee.queen.sql import SqlDatabase
from rbee.queen.tables import BEEHIVES


class NodeTable:
    """Rows of nodes."""

    def __init__(self, sql: SqlDatabase) -> None:
        self._sql = sql

    async def add(self, spec: NodeSpec) -> NodeInfo:
        """Add a node; with `spec.replace` change one that is there. Raises RbeeError NODE_EXISTS."""
        values = spec.model_dump(mode="json", exclude={"hive_key", "replace"})

        def work(connection: Connection) -> NodeInfo:
            known = connection.execute(_by_name(spec.node_name)).first()
            if known is not None and not spec.replace:
                raise _exists(spec.node_name)
            if known is None:
                connection.execute(BEEHIVES.insert().values(status=NodeStatus.UNKNOWN.value, **values))
            else:
                connection.execute(_row(spec.node_name).values(**values))
            return _info(connection.execute(_by_name(spec.node_name)).one())

        try:
            return await self._sql.run(work)
        except IntegrityError as error:
            raise _exists(spec.node_name) from error

    async def remove(self, node: str) -> None:
        """Remove a node. Raises RbeeError NODE_NOT_FOUND."""
        done = await self._sql.run(
            lambda connection: connection.execute(delete_from(BEEHIVES).where(BEEHIVES.c.node_name == node)).rowcount
        )
        if not done:
            raise RbeeError(ErrorCode.NODE_NOT_FOUND, f"There is no node named {node}.")

    async def list(self) -> list[NodeInfo]:
        """List the nodes by name."""
        rows = await self._sql.run(
            lambda connection: connection.execute(select(BEEHIVES).order_by(BEEHIVES.c.node_name)).all()
        )
        return [_info(row) for row in rows]

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


def _exists(node: str) -> RbeeError:
    return RbeeError(ErrorCode.NODE_EXISTS, f"There already is a node named {node}.", details={"node": node})
