"""The events of the fleet, for pages and terminals that show it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query

from rbee.contracts.events import EventsQuery
from rbee.daemonkit.sse import EventStream
from rbee.queen.routes.dependencies import OperatorCheck, QueenDep

router = APIRouter()


@router.get("/v2/events", status_code=200, response_class=EventStream)
async def events(
    queen: QueenDep,
    check: OperatorCheck,
    query: Annotated[EventsQuery, Query()],
    last_event_id: Annotated[str, Header(max_length=128)] = "",
) -> EventStream:
    """Return everything that is known of the fleet, and then each change within a second, while the client may."""
    return EventStream(queen.events.read(last_event_id or query.after), until=queen.drain.closed, check=check)
