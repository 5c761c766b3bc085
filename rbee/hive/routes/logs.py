"""The logs of the hive and its workers."""

from __future__ import annotations

from collections.abc import AsyncIterator

from rbee.contracts.hives import LogsQuery
from rbee.daemonkit.operations import Routes
from rbee.daemonkit.sse import DONE, EventStream, encode
from rbee.hive.daemon import Hive
from rbee.hive.logs import LogFollower

routes = Routes[Hive]()


@routes.get("/v1/logs")
async def logs(hive: Hive, query: LogsQuery) -> EventStream:
    """Return the last lines of each log; with *follow* also what comes, until the client or the hive goes."""
    follower = LogFollower(hive.paths.logs, since_unix=hive.started_unix)
    return EventStream(_events(follower, query.lines, follow=query.follow), until=hive.drain.closed)


async def _events(follower: LogFollower, lines: int, *, follow: bool) -> AsyncIterator[bytes]:
    async for line in follower.lines(last=lines, follow=follow):
        yield encode(line)
    yield DONE
