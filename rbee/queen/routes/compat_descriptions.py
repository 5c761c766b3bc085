"""Describe the compatible interfaces of inference for the OpenAPI document; `compat` answers, before routing."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from rbee.daemonkit.dialects import COMPAT_ROUTES, CompatRoute
from rbee.daemonkit.json_body import JsonBody
from rbee.queen.routes.compat import CompatEndpoint
from rbee.queen.routes.dependencies import QueenDep

router = APIRouter()


def _describe(route: CompatRoute) -> None:
    """Declare a route for the OpenAPI document; its requests are answered by `endpoints`, before routing."""

    async def relay(queen: QueenDep, _body: Any) -> Response:
        return CompatEndpoint(queen)

    body: Any = JsonBody
    relay.__annotations__["_body"] = body[route.request]
    relay.__doc__ = route.summary
    router.post(route.path, response_class=Response)(relay)


for _route in COMPAT_ROUTES:
    _describe(_route)
