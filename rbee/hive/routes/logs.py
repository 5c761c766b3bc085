"""The logs of the hive and its workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from rbee.daemonkit.sse import DONE, EventStream, encode
from rbee.hive.deps import HiveDep
from rbee.hive.logs import LogFollower

router = APIRouter()


@router.get("/v1/logs", response_class=Response)
async def logs(
    hive: HiveDep,
    lines: Annotated[int, Query(ge=0, le=100_000)] = 100,
    *,
    follow: bool = False,
) -> EventStream:
    """Give the last lines of each log; with *follow* also what comes, until the client or the hive goes."""
    follower = LogFollower(hive.paths.logs, since_unix=hive.started_unix)
    return EventStream(_events(follower, lines, follow=follow), until=hive.drain.closed)


async def _events(follower: LogFollower, lines: int, *, follow: bool) -> AsyncIterator[bytes]:
    async for line in follower.lines(last=lines, follow=follow):
        yield encode(line)
    yield DONE
