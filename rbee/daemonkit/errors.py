"""Convert every failure to the error body."""

from __future__ import annotations

import re
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Send

from rbee.contracts import patterns
from rbee.contracts.errors import ERRORS, ErrorCode
from rbee.errors import RbeeError

MAX_ERRORS: Final = 10
"""Findings that an error names."""

_MAX_BUILT: Final = 1000
"""Findings of which each may become an object: pydantic builds all of them or none."""

MAX_PATH_CHARS: Final = 256
"""Characters of a path that are repeated, in an error or in a log."""

ANTHROPIC_ROUTES: Final = "/v1/messages"
OLLAMA_ROUTES: Final = "/api/"
_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""The types that Anthropic's clients distinguish, by status; all others are `api_error`."""

_MAX_REASON_CHARS: Final = 500  # a reason may repeat what was given
_FIELD: Final = re.compile(r"[a-z_][a-z0-9_]*|[0-9]+")
_UNION_MEMBERS: Final = frozenset({"str", "int", "bool", "list", "dict", "literal"})
_ROUTING: Final = {
    404: ErrorCode.ROUTE_NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.PAYLOAD_TOO_LARGE,
}


def error_body(error: RbeeError, request_id: str | None, path: str) -> dict[str, Any]:
    """Return the error body for a route: on Anthropic's ones with the types that its clients distinguish.

    On Ollama's the message is the error, and what else there is lies beside it.
    """
    body = error.body(request_id)
    if path.startswith(OLLAMA_ROUTES):
        return {"error": error.message, **{name: value for name, value in body["error"].items() if name != "message"}}
    if not path.startswith(ANTHROPIC_ROUTES):
        return body
    kind = _ANTHROPIC_TYPES.get(error.http_status, "api_error")
    return {"type": "error", **body, "error": {**body["error"], "type": kind, "rbee_type": ERRORS[error.code].type}}


def error_response(error: RbeeError, request_id: str | None, path: str) -> JSONResponse:
    """Return the response for *error* on a route, with Retry-After where the table has one."""
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if error.http_status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.code in (ErrorCode.WORKER_CRASHED, ErrorCode.WORKER_STALLED):
        # Clients made by OpenAI and Anthropic send a request that failed with 500 again: here to the next worker.
        headers["X-Should-Retry"] = "false"
    return JSONResponse(error_body(error, request_id, path), status_code=error.http_status, headers=headers)


async def send_error(error: RbeeError, request_id: str | None, path: str, send: Send) -> None:
    """Send the response for *error* from inside another response."""
    response = error_response(error, request_id, path)
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": bytes(response.body), "more_body": False})


def install(app: FastAPI) -> None:
    """Register the handlers. A bug gets a response here and is raised again, for the middleware to log."""
    app.add_exception_handler(RbeeError, _on_rbee_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_bug)


def internal_error() -> RbeeError:
    """Return the error for a bug, without any detail of it."""
    return RbeeError(ErrorCode.INTERNAL, "An internal error occurred in rbee.")


def invalid_body(error: ValidationError) -> RbeeError:
    """Return the error for what pydantic found in a body; INVALID_REQUEST or INVALID_BACKEND."""
    if error.error_count() > _MAX_BUILT:
        return RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"The body has {error.error_count()} errors, too many to name one.",
            details={"errors": []},
        )
    return validation_error(list(error.errors(include_url=False)))


def validation_error(errors: list[Any]) -> RbeeError:
    """Return the error for pydantic's findings: the first one is the message, the first ten are in the details.

    The code is INVALID_BACKEND where the first one is a backend that does not exist, else INVALID_REQUEST.
    """
    errors = _meant_first(errors)
    found = [(_field(item), _reason(item)) for item in errors[:MAX_ERRORS]]
    field, reason = found[0] if found else ("", "invalid")
    code, message = ErrorCode.INVALID_REQUEST, f"{field}: {reason}." if field else f"{reason}."
    if field == "backend" and errors[0]["type"] == "enum":
        given, valid = str(errors[0]["input"])[:60], errors[0]["ctx"]["expected"]
        code, message = ErrorCode.INVALID_BACKEND, f"There is no backend {given!r}; valid backends are {valid}."
    return RbeeError(
        code,
        message,
        param=field or None,
        details={"errors": [{"field": name, "reason": why} for name, why in found]},
    )


async def _on_rbee_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RbeeError)
    request.scope["state"]["error"] = error
    return error_response(error, request_id_of(request), request.url.path)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # FastAPI prefixes the path of a field with its place: body, query or path.
    found = [{**item, "loc": item["loc"][1:]} for item in error.errors()]
    if found and found[0]["type"] == "missing" and not found[0]["loc"]:
        found[0]["msg"] = _empty_body()
    return error_response(validation_error(found), request_id_of(request), request.url.path)


def _empty_body() -> str:
    """Return pydantic's message for an empty body."""
    try:
        from_json(b"")
    except ValueError as error:
        return f"Invalid JSON: {error}"
    raise AssertionError


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    # FastAPI wraps exceptions that are raised while it reads the body.
    if isinstance(error.__cause__, RbeeError):
        return await _on_rbee_error(request, error.__cause__)
    if isinstance(error.__cause__, ClientDisconnect):
        return await _on_disconnect(request, error.__cause__)
    code = _ROUTING.get(error.status_code, ErrorCode.INVALID_REQUEST)
    path = request.url.path[:MAX_PATH_CHARS]
    message = {
        ErrorCode.ROUTE_NOT_FOUND: f"There is no route {path}.",
        ErrorCode.METHOD_NOT_ALLOWED: f"{path} does not support {request.method}.",
    }.get(code, str(error.detail))
    response = error_response(RbeeError(code, message), request_id_of(request), request.url.path)
    if error.headers and "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response


async def _on_disconnect(request: Request, _error: Exception) -> Response:
    """Return a response for the log: the client disconnected and does not read it."""
    error = RbeeError(ErrorCode.CANCELED, "The client disconnected before its request was complete.")
    return error_response(error, request_id_of(request), request.url.path)


async def _on_bug(request: Request, _error: Exception) -> Response:
    return error_response(internal_error(), request_id_of(request), request.url.path)


def request_id_of(request: Request) -> str | None:
    """Return the id that the middleware assigned to the request."""
    value = request.scope.get("state", {}).get("request_id")
    return value if isinstance(value, str) else None


def _meant_first(errors: list[Any]) -> list[Any]:
    """Return the findings with that one first which is about the member of a union that was meant.

    pydantic tells of every member, in their order. The one that was meant is that which got furthest: its type fits
    and only a bound does not, or what is wrong is the deepest inside.
    """
    if not errors:
        return errors
    loc = errors[0]["loc"]
    tag = next((at for at, part in enumerate(loc) if not _is_field(str(part))), len(loc))
    if tag == len(loc):
        return errors
    members = [item for item in errors if item["loc"][:tag] == loc[:tag] and len(item["loc"]) > tag]
    meant = max(members, key=_distance)
    return [meant, *(item for item in errors if item is not meant)]


def _distance(item: dict[str, Any]) -> tuple[bool, int, int]:
    kind, last = item["type"], item["loc"][-1]
    another_kind = kind.endswith(("_type", "_parsing")) or kind in ("literal_error", "enum")
    return not another_kind, len(item["loc"]), last if isinstance(last, int) else 0


def _is_field(part: str) -> bool:
    return _FIELD.fullmatch(part) is not None and part not in _UNION_MEMBERS


def _field(item: dict[str, Any]) -> str:
    """Return the path of a field, without the parts that name a member of a union."""
    loc: tuple[int | str, ...] = item["loc"]
    unknown = loc[-1:] if item["type"] == "extra_forbidden" else ()
    known = [str(part) for part in loc[: len(loc) - len(unknown)]]
    fields = [part for part in known if _is_field(part)]
    return ".".join([*fields, *map(str, unknown)])[:200]


def _reason(item: dict[str, Any]) -> str:
    message = patterns.reason(item)[:_MAX_REASON_CHARS]
    given = item.get("input")
    if isinstance(given, int | float | bool) or (isinstance(given, str) and len(given) <= 60):
        return f"{message} (got {given!r})"
    return message
