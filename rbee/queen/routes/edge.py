"""The interfaces of other people's clients: the queen finds a worker and passes its answer on."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import DEADLINE_HEADER
from rbee.contracts.models import ModelCards
from rbee.contracts.workers import MAX_MODEL_CHARS
from rbee.daemonkit.body import read_body
from rbee.daemonkit.dialects import COMPAT_ROUTES, CompatRoute
from rbee.daemonkit.http1 import connection_of
from rbee.daemonkit.json_body import JsonBody, parse_as
from rbee.errors import RbeeError
from rbee.queen import direct
from rbee.queen.daemon import Queen
from rbee.queen.errand import DIALECTS, EdgeRequest, Terms
from rbee.queen.names import SCHEMES, cards, resolve
from rbee.queen.placement import Wish
from rbee.queen.prefixes import marks_of
from rbee.queen.recipients import EdgeRecipient
from rbee.queen.routes.dependencies import QueenDep
from rbee.queen.task_stream import perform

router = APIRouter()
_HOW: Final = {
    "node": b"x-rbee-node",
    "backend": b"x-rbee-backend",
    "device": b"x-rbee-device",
    "priority": b"x-rbee-priority",
    "deadline_s": DEADLINE_HEADER.lower().encode(),
}
_NO_TERMS: Final = Terms()


@router.get("/v1/models")
async def models(queen: QueenDep) -> ModelCards:
    """List the models by the names that requests may use: aliases, and what is catalogued or served somewhere."""
    await queen.readiness.listed()
    hives = queen.fleet.registry.hives()
    return ModelCards(data=cards(queen.board.aliases, hives, created=int(queen.started_unix)))


class Relayed(Response):
    """Have a worker answer, placed by `model` and the headers X-Rbee-Node, -Backend, -Device, -Priority, -Deadline.

    With `X-Rbee-Direct: true` the answer may be a redirect (307) to the worker, for a client that can reach it.
    """

    def __init__(self, queen: Queen) -> None:
        super().__init__()
        self._queen = queen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        queen, clock = self._queen, asyncio.get_running_loop().time
        began = clock()
        headers = dict(scope["headers"])
        asked = await self._asked(scope["path"], await read_body(receive), headers)
        if direct.wished(headers):
            link = direct.worker_for(queen, asked, (scope.get("client") or ("",))[0])
            if link is not None:
                await direct.redirect(link, asked.path, send)
                return
        task = queen.board.accept(asked, scope["state"]["client"], draining=queen.drain.draining.is_set())
        wire = connection_of(scope)
        recipient = EdgeRecipient(send, wire, DIALECTS[asked.path], stream=asked.stream, now=began, clock=clock)
        await perform(task, queen.board, recipient, wire, scope["state"]["request_id"])

    async def _asked(self, path: str, body: bytes, headers: dict[bytes, bytes]) -> EdgeRequest:
        """Look at the few fields that matter here. Raises RbeeError INVALID_REQUEST or MODEL_NOT_FOUND."""
        try:
            fields = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise RbeeError(ErrorCode.INVALID_REQUEST, f"The body is not JSON: {error}.") from error
        name = fields.get("model") if isinstance(fields, dict) else None
        if not isinstance(name, str) or not 0 < len(name) <= MAX_MODEL_CHARS:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"The body has no 'model' with the name of one, of at most {MAX_MODEL_CHARS} characters.",
                param="model",
            )
        return EdgeRequest(
            model=await self._reference(name),
            path=path,
            body=body,
            stream=fields.get("stream") is True,
            marks=marks_of(fields),
            terms=_terms(headers),
        )

    async def _reference(self, asked: str) -> str:
        """Resolve a name; what may be the name of a file waits for the hives to say which they have."""
        queen = self._queen
        if asked not in queen.board.aliases and not asked.startswith(SCHEMES):
            await queen.readiness.met(Wish(asked))
            await queen.readiness.listed()
        return resolve(asked, queen.board.aliases, queen.fleet.registry.hives())


def answers(queen: Queen) -> dict[str, ASGIApp]:
    """Give who answers, by path."""
    return dict.fromkeys(DIALECTS, Relayed(queen))


def _describe(route: CompatRoute) -> None:
    """Declare a route for the OpenAPI document; its requests are answered by `answers`, before it comes to routing."""

    async def relay(queen: QueenDep, _body: Any) -> Response:
        return Relayed(queen)

    body: Any = JsonBody
    relay.__annotations__["_body"] = body[route.body]
    relay.__doc__ = route.summary
    router.post(route.path, response_class=Response)(relay)


for _route in COMPAT_ROUTES:
    _describe(_route)


def _terms(headers: dict[bytes, bytes]) -> Terms:
    said = {name: headers[header].decode("latin-1") for name, header in _HOW.items() if header in headers}
    if not said:
        return _NO_TERMS
    return parse_as(Terms, said)
