"""The compatible interfaces of inference: the queen finds a worker and relays its answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any, Final

from pydantic_core import from_json
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import DEADLINE_HEADER
from rbee.contracts.keys import Right
from rbee.contracts.workers import MAX_MODEL_CHARS
from rbee.daemonkit.body import read_body
from rbee.daemonkit.dialects import Dialect
from rbee.daemonkit.http1 import connection_of
from rbee.daemonkit.json_body import parse_as
from rbee.daemonkit.json_limits import check_json
from rbee.errors import RbeeError
from rbee.queen.daemon import Queen
from rbee.queen.keys.access import Client, check_placement, require
from rbee.queen.routes import redirect
from rbee.queen.routes.dependencies import client_of
from rbee.queen.routes.model_access import find_model, plain_name
from rbee.queen.routes.unloading import asks_to_unload, unload_model
from rbee.queen.tasks.fallback import Fallbacks, may_fall_back
from rbee.queen.tasks.sinks import CompatSink
from rbee.queen.tasks.task import answer
from rbee.queen.tasks.upstream_request import (
    DIALECTS,
    CompatRequest,
    RoutingOptions,
    is_stream,
    to_alternative,
    with_preset,
)
from rbee.surrogates import repaired_json

_HEADERS: Final = {
    "node": b"x-rbee-node",
    "backend": b"x-rbee-backend",
    "device": b"x-rbee-device",
    "priority": b"x-rbee-priority",
    "deadline_s": DEADLINE_HEADER.lower().encode(),
}
_PLACES: Final = ("node", "backend", "device")
_NO_OPTIONS: Final = RoutingOptions()


class CompatEndpoint(Response):
    """Have a worker answer, placed by `model` and the headers X-Rbee-Node, -Backend, -Device, -Priority, -Deadline.

    With `X-Rbee-Direct: true` the answer may be a redirect (307) to the worker, for a client that can reach it. Where a
    declared model cannot be served and another one answers, `X-Rbee-Fallback` names that.
    """

    def __init__(self, queen: Queen) -> None:
        super().__init__()
        self._queen = queen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        queen, clock = self._queen, asyncio.get_running_loop().time
        began = clock()
        headers, client, path = dict(scope["headers"]), client_of(scope), scope["path"]
        require(client, Right.INFER, "running inference")
        request = await self._parse_request(client, path, await read_body(receive), headers)
        if request.unloads is not None:
            require(client, Right.OPERATE, "unloading a model ('keep_alive': 0)")
            scope["state"].update(operates=True, what={"model": request.unloads})
            await unload_model(queen, client, request.unloads)
            from rbee.daemonkit.json_lines import load_line  # no start waits for Ollama's messages

            line = load_line(path, request.unloads, "unload")
            await Response(line, media_type="application/json")(scope, receive, send)
            return
        # What a limited key uses must be counted, and so be relayed; a redirected client sends its own body again.
        if redirect.is_requested(headers) and not client.limited and not request.rewritten:
            link = redirect.find_worker(queen, request, client.name, (scope.get("client") or ("",))[0])
            if link is not None:
                redirect.count(queen, client, request.name, link)
                await redirect.redirect(link, request.path, queen.client_ids.id(client.name), send)
                return
        draining = queen.drain.draining.is_set()
        admission = queen.tasks.admit(
            request,
            client,
            model=request.name,
            draining=draining,
            may_fetch=request.may_fetch,
            served=request.served,
            fallbacks=request.fallbacks,
        )
        connection = connection_of(scope)
        sink = CompatSink(send, connection, DIALECTS[request.path], stream=request.stream, now=began, clock=clock)
        await answer(admission, sink, connection, scope["state"]["request_id"])

    async def _parse_request(
        self, client: Client, path: str, body: bytes, headers: dict[bytes, bytes]
    ) -> CompatRequest:
        """Parse the few fields that matter here. Raises RbeeError INVALID_REQUEST, FORBIDDEN or MODEL_NOT_FOUND."""
        check_json(body)
        try:
            fields = from_json(body)
        except ValueError as error:
            repaired = repaired_json(body)
            if repaired is None:
                raise RbeeError(ErrorCode.INVALID_REQUEST, f"The body is not JSON: {error}.") from error
            return await self._parse_request(client, path, repaired, headers)
        name = fields.get("model") if isinstance(fields, dict) else None
        if not isinstance(name, str) or not 0 < len(name) <= MAX_MODEL_CHARS:
            raise RbeeError(
                ErrorCode.INVALID_REQUEST,
                f"'model' is required: a string of 1 to {MAX_MODEL_CHARS} characters.",
                param="model",
            )
        stream = fields.get("stream")
        if stream is not None and not isinstance(stream, bool):
            # The worker would read "true" and 1 as true, and how an answer is relayed and counted depends on it.
            raise RbeeError(ErrorCode.INVALID_REQUEST, "'stream' must be true or false.", param="stream")
        options = _routing_options(headers)
        if options is not _NO_OPTIONS and not client.operates:
            check_placement(client, [field for field in _PLACES if getattr(options, field) is not None])
        if DIALECTS[path] is Dialect.OLLAMA:
            name = plain_name(self._queen, name)
        model = await find_model(self._queen, client, name)
        request = CompatRequest(
            name=name,
            model=model.reference,
            path=path,
            body=body,
            stream=is_stream(path, stated=stream),
            options=options,
            may_fetch=model.may_fetch,
            served=model.served,
            unloads=name if asks_to_unload(path, fields) else None,
        )
        return self._as_declared(request, name, fields)

    def _as_declared(self, request: CompatRequest, name: str, fields: dict[str, Any]) -> CompatRequest:
        """Add to a request to *name* what is declared of that: the defaults of a preset, and the fallbacks."""
        served = request.served
        if served is None:
            return with_preset(request, fields, None)
        prepared = with_preset(request, fields, served.presets.get(name))
        alternatives = self._queen.declarations.fallbacks(served)
        if not alternatives or not may_fall_back(request.path, fields):
            return prepared
        return replace(prepared, fallbacks=Fallbacks(name, alternatives, partial(to_alternative, request)))


def endpoints(queen: Queen) -> dict[str, ASGIApp]:
    """Return the application for each path."""
    return dict.fromkeys(DIALECTS, CompatEndpoint(queen))


def _routing_options(headers: dict[bytes, bytes]) -> RoutingOptions:
    given = {name: headers[header].decode("latin-1") for name, header in _HEADERS.items() if header in headers}
    if not given:
        return _NO_OPTIONS
    return parse_as(RoutingOptions, given)
