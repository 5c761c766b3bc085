"""What the queen's routes depend on."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from rbee.queen.daemon import Queen


async def _queen(request: Request) -> Queen:
    daemon: Queen = request.app.state.daemon
    return daemon


QueenDep = Annotated[Queen, Depends(_queen)]
