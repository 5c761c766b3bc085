"""The logs of the hive and its workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query

from rbee.contracts.hives import LogsQuery
from rbee.daemonkit.sse import DONE, EventStream, encode
from rbee.hive.logs import LogFollower
from rbee.hive.routes.dependencies import HiveDep

router = APIRouter()


@router.get("/v1/logs", status_code=200, response_class=EventStream)
async def logs(hive: HiveDep, query: Annotated[LogsQuery, Query()]) -> EventStream:
    """Return the last lines of each log; with *follow* also what comes, until the client or the hive goes."""
    follower = LogFollower(hive.paths.logs, since_unix=hive.started_unix)
    return EventStream(_events(follower, query.lines, follow=query.follow), until=hive.drain.closed)


async def _events(follower: LogFollower, lines: int, *, follow: bool) -> AsyncIterator[bytes]:
    async for line in follower.lines(last=lines, follow=follow):
        yield encode(line)
    yield DONE
