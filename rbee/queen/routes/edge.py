"""The interfaces of other people's clients: the queen finds a worker and passes its answer on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import DEADLINE_HEADER
from rbee.contracts.models import ModelCards
from rbee.daemonkit.errors import validation_error
from rbee.errors import RbeeError
from rbee.queen.daemon import Queen
from rbee.queen.deps import QueenDep, get_client, get_queen
from rbee.queen.errand import DIALECTS, EdgeRequest
from rbee.queen.names import SCHEMES, cards, resolve
from rbee.queen.placement import Wish
from rbee.queen.prefixes import marks_of
from rbee.queen.recipients import EdgeRecipient
from rbee.queen.task_stream import TaskStream

router = APIRouter(prefix="/v1")
_HOW = {
    "node": "x-rbee-node",
    "backend": "x-rbee-backend",
    "device": "x-rbee-device",
    "priority": "x-rbee-priority",
    "deadline_s": DEADLINE_HEADER.lower(),
}


@router.get("/models")
async def models(queen: QueenDep) -> ModelCards:
    """List the models by the names that requests may use: aliases, and what is catalogued or served somewhere."""
    hives = queen.fleet.registry.hives()
    return ModelCards(data=cards(queen.board.aliases, hives, created=int(queen.started_unix)))


async def _relayed(request: Request) -> TaskStream:
    """Have a worker answer, placed by `model` and the headers X-Rbee-Node, -Backend, -Device, -Priority, -Deadline."""
    queen, client = await get_queen(request), await get_client(request)
    asked = await _read(request)
    asked = asked.model_copy(update={"model": await _reference(queen, asked.model)})
    task = queen.board.accept(asked, client, draining=queen.drain.draining.is_set())
    clock = asyncio.get_running_loop().time
    began = clock()
    dialect = DIALECTS[asked.path]
    return TaskStream(
        task, queen.board, lambda send: EdgeRecipient(send, dialect, stream=asked.stream, now=began, clock=clock)
    )


# Once for the documentation, and once for speed.
for _path in DIALECTS:
    router.add_api_route(_path.removeprefix("/v1"), _relayed, methods=["POST"], response_class=Response, name=_path)
fast = [Route(path, _relayed, methods=["POST"]) for path in DIALECTS]


async def _read(request: Request) -> EdgeRequest:
    """Look at the few fields that matter here. Raises RbeeError INVALID_REQUEST."""
    body = await request.body()
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RbeeError(ErrorCode.INVALID_REQUEST, f"The body is not JSON: {error}.") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("model"), str):
        raise RbeeError(ErrorCode.INVALID_REQUEST, "The body has no 'model' with the name of one.", param="model")
    how: dict[str, Any] = {name: request.headers[header] for name, header in _HOW.items() if header in request.headers}
    try:
        return EdgeRequest(
            model=fields["model"],
            path=request.url.path,
            body=body,
            stream=fields.get("stream") is True,
            marks=marks_of(fields),
            **how,
        )
    except ValidationError as error:
        raise validation_error(list(error.errors(include_url=False))) from error


async def _reference(queen: Queen, asked: str) -> str:
    """Resolve a name; what may be the name of a file waits for the hives to say which they have."""
    aliases = queen.board.aliases
    if asked not in aliases and not asked.startswith(SCHEMES):
        await queen.readiness.met(Wish(asked))
    return resolve(asked, aliases, queen.fleet.registry.hives())
