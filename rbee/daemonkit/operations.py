"""What a daemon answers to: each route declared once, with the types of what comes in and goes out.

A web framework would do the same from the same declarations, but the import of one takes longer than all the rest of
a daemon, and a cold answer waits for the imports of three.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from rbee.daemonkit.errors import validation_error

Answer = Callable[[Request], Awaitable[Response]]
Shape = type[BaseModel] | type[Response] | str | None
"""What a body is: a model, `module:Model` for one that is loaded by whoever needs it, a response that is no JSON, or
nothing."""
_Daemon = TypeVar("_Daemon")
_Model = TypeVar("_Model", bound=BaseModel)
_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[Any]])


@dataclass(frozen=True, slots=True)
class Operation:
    """One route as its users see it, and who answers it; *query* is a model of what may stand behind the `?`."""

    method: str
    path: str
    summary: str
    answer: Answer
    body: Shape = None
    query: type[BaseModel] | None = None
    response: Shape = None
    status: int = 200
    body_required: bool = True


class Routes(Generic[_Daemon]):
    """Routes of one kind of daemon, declared by their handlers.

    A handler's first parameter is the daemon. Of the others, `body` and `query` are pydantic models (a `body` that may
    be None may be left out), `request` is Starlette's, and any other name is a part of the path, as text. What a
    handler returns is its response: a model, a Response, or None for no content. Its docstring is the summary.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._declared: list[Callable[[_Daemon], Operation]] = []

    def get(self, path: str) -> Callable[[_Handler], _Handler]:
        """Declare what answers GET."""
        return self._on("GET", path, 200)

    def post(self, path: str, *, status: int = 200) -> Callable[[_Handler], _Handler]:
        """Declare what answers POST, with *status* where all is well."""
        return self._on("POST", path, status)

    def delete(self, path: str) -> Callable[[_Handler], _Handler]:
        """Declare what answers DELETE."""
        return self._on("DELETE", path, 200)

    def of(self, daemon: _Daemon) -> list[Operation]:
        """Give the routes of one daemon."""
        return [declared(daemon) for declared in self._declared]

    def _on(self, method: str, path: str, status: int) -> Callable[[_Handler], _Handler]:
        def declare(handler: _Handler) -> _Handler:
            self._declared.append(lambda daemon: _operation(method, self._prefix + path, status, handler, daemon))
            return handler

        return declare


def served(operations: Sequence[Operation], title: str) -> list[BaseRoute]:
    """Give Starlette's routes for all operations, and one more that describes them."""

    async def describe(_request: Request) -> Response:
        from rbee.daemonkit.openapi import document  # nobody waits for it at the start

        return JSONResponse(document(operations, title))

    routes: list[BaseRoute] = [Route(one.path, one.answer, methods=[one.method]) for one in operations]
    return [*routes, Route("/openapi.json", describe)]


def checked(model: type[_Model], given: bytes | dict[str, Any]) -> _Model:
    """Read *given*, JSON or fields, as a model. Raises RbeeError INVALID_REQUEST."""
    try:
        return model.model_validate_json(given) if isinstance(given, bytes) else model.model_validate(given)
    except ValidationError as error:
        raise validation_error(list(error.errors(include_url=False))) from error


def respond(result: BaseModel | Response | None, status: int = 200) -> Response:
    """Make the response of what a handler returns."""
    if result is None:
        return Response(status_code=204)
    if isinstance(result, Response):
        return result
    return Response(result.model_dump_json(), status, media_type="application/json")


def _operation(
    method: str, path: str, status: int, handler: Callable[..., Awaitable[Any]], daemon: object
) -> Operation:
    hints = get_type_hints(handler)
    response = hints.pop("return")
    body, query = hints.get("body"), hints.get("query")
    required = type(None) not in get_args(body)
    if not required:
        (body,) = set(get_args(body)) - {type(None)}

    async def answer(request: Request) -> Response:
        given: dict[str, Any] = dict(request.path_params)
        if "request" in hints:
            given["request"] = request
        if query is not None:
            given["query"] = checked(query, dict(request.query_params))
        if body is not None:
            sent = await request.body()
            given["body"] = checked(body, sent) if sent or required else None
        return respond(await handler(daemon, **given), status)

    return Operation(
        method,
        path,
        (handler.__doc__ or "").partition("\n")[0].rstrip("."),
        answer,
        body,
        query,
        None if response is type(None) else response,
        204 if response is type(None) else status,
        body_required=required,
    )
