"""The logs of a node: its hive's and workers', and on the queen's own machine hers too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from rbee.contracts.ids import LOCALHOST_NODE
from rbee.contracts.queen import LogLine
from rbee.daemonkit.sse import DONE, EventStream, encode
from rbee.queen.deps import NodeName, QueenDep
from rbee.queen.logs import merged, own_lines
from rbee.queen.placement import Wish

router = APIRouter()


@router.get("/v2/logs", response_class=Response)
async def logs(
    queen: QueenDep,
    node: NodeName = LOCALHOST_NODE,
    lines: Annotated[int, Query(ge=0, le=100_000)] = 100,
    *,
    follow: bool = False,
) -> EventStream:
    """Give the last lines of each log; with *follow* also what comes, until the client or the queen goes."""
    await queen.readiness.met(Wish("", node))
    client = queen.channels.client(node)
    sources: list[AsyncIterator[LogLine]] = [client.logs(follow=follow, lines=lines)]
    if node == LOCALHOST_NODE:
        sources.insert(0, own_lines(queen.paths.logs / "queen-rbee.log", last=lines, follow=follow))
    return EventStream(_events(sources, follow=follow), until=queen.drain.closed)


async def _events(sources: list[AsyncIterator[LogLine]], *, follow: bool) -> AsyncIterator[bytes]:
    if follow:
        async for line in merged(sources):
            yield encode(line)
    else:
        for source in sources:
            async for line in source:
                yield encode(line)
    yield DONE
