"""What routes ask for by type."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query
from starlette.requests import HTTPConnection

from rbee.queen.daemon import Queen


async def get_queen(connection: HTTPConnection) -> Queen:
    """Give the queen that serves this request."""
    queen = connection.app.state.queen
    assert isinstance(queen, Queen)
    return queen


QueenDep = Annotated[Queen, Depends(get_queen)]
"""The queen."""


async def check_accepting(queen: QueenDep) -> None:
    """Refuse new work while the queen is ending."""
    queen.drain.check()


async def get_client(connection: HTTPConnection) -> str:
    """Give the name of whose request this is."""
    return str(connection.scope["state"]["client"])


Client = Annotated[str, Depends(get_client)]
"""Whose request it is: the operator's, or that of a client with a key of its own."""

Accepting = Depends(check_accepting)
"""For routes that begin something: refused with DRAINING while the queen is ending."""

NodeName = Annotated[str, Query(min_length=1, max_length=253)]
"""The node that a route is about."""

ModelText = Annotated[str, Query(min_length=1, max_length=2048)]
"""A model by id, reference or alias."""
