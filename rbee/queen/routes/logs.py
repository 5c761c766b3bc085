"""The logs of a node: its hive's and workers', and on the queen's own machine the queen's too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query

from rbee.contracts.ids import LOCALHOST_NODE
from rbee.contracts.queen import LogLine, NodeLogsQuery
from rbee.daemonkit.sse import DONE, EventStream, encode
from rbee.queen.logs import merged, own_lines
from rbee.queen.routes.dependencies import OperatorCheck, QueenDep

router = APIRouter()


@router.get("/v2/logs", status_code=200, response_class=EventStream)
async def logs(queen: QueenDep, check: OperatorCheck, query: Annotated[NodeLogsQuery, Query()]) -> EventStream:
    """Return the last lines of each log; with *follow* also new ones, until the client leaves or the queen ends."""
    await queen.readiness.ensure_node(query.node)
    client = queen.channels.client(query.node)
    sources: list[AsyncIterator[LogLine]] = [client.logs(follow=query.follow, lines=query.lines)]
    if query.node == LOCALHOST_NODE:
        sources.insert(0, own_lines(queen.paths.logs / "queen-rbee.log", last=query.lines, follow=query.follow))
    return EventStream(_events(sources, follow=query.follow), until=queen.drain.closed, check=check)


async def _events(sources: list[AsyncIterator[LogLine]], *, follow: bool) -> AsyncIterator[bytes]:
    if follow:
        async for line in merged(sources):
            yield encode(line)
    else:
        for source in sources:
            async for line in source:
                yield encode(line)
    yield DONE
