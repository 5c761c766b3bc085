"""What clients have used: all of it for operators, its own for each client."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from rbee.contracts.keys import Right
from rbee.contracts.usage import UsageQuery, UsageReport
from rbee.queen.keys.access import require
from rbee.queen.routes.dependencies import ClientDep, QueenDep

router = APIRouter()


@router.get("/v2/usage")
async def usage(queen: QueenDep, client: ClientDep, query: Annotated[UsageQuery, Query()]) -> UsageReport:
    """Add up what was used until now, by day, client and model; a client that may not operate sees only its own."""
    if not client.operates:
        if query.client not in (None, client.name):
            require(client, Right.OPERATE, "seeing what other clients use")
        query = query.model_copy(update={"client": client.name})
    return await queen.usage.report(query)
