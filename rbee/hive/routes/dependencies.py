"""What the hive's routes depend on."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from rbee.hive.daemon import Hive


async def _hive(request: Request) -> Hive:
    daemon: Hive = request.app.state.daemon
    return daemon


HiveDep = Annotated[Hive, Depends(_hive)]
