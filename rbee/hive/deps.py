"""What routes ask for by type."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from rbee.hive.daemon import Hive


async def get_hive(connection: HTTPConnection) -> Hive:
    """Give the hive that serves this request."""
    hive = connection.app.state.hive
    assert isinstance(hive, Hive)
    return hive


HiveDep = Annotated[Hive, Depends(get_hive)]
"""The hive."""


async def check_accepting(hive: HiveDep) -> None:
    """Refuse new work while the hive is ending."""
    hive.drain.check()


Accepting = Depends(check_accepting)
"""For routes that begin something: refused with DRAINING while the hive is ending."""
