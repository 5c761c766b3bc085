"""The middleware of every request: request id, authentication, size of the body, handling of bugs, one log line.

Pure ASGI, so that streams pass through unchanged.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import REQUEST_ID_HEADER, new_id
from rbee.daemonkit.auth import ANONYMOUS, Authenticator
from rbee.daemonkit.content_encoding import decoded
from rbee.daemonkit.errors import MAX_PATH_CHARS, error_response, internal_error
from rbee.daemonkit.http1 import mark_authenticated
from rbee.errors import RbeeError
from rbee.observe import logs, metrics, trace
from rbee.observe.throttle import INTERVAL_S, LogThrottle

log = logging.getLogger(__name__)
_ID_HEADER = REQUEST_ID_HEADER.lower().encode()
_TRACE_HEADER = trace.HEADER.encode()
_CLIENT_LEFT = 499  # as ErrorCode.CANCELED
_UNAUTHENTICATED = 401
_QUIET = ("/health", "/v1/health", "/v1/ready")


class RequestMiddleware:
    """The middleware around the application.

    Args:
        fast_paths: by path, the application that handles POST requests: without FastAPI's routing and dependencies,
            which cost more than a short response itself.
        on_end: called with the scope and the status of every request at its end; its state has the `caller`, and the
            `error` that it was answered with.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticator: Authenticator,
        max_body_bytes: int,
        fast_paths: Mapping[str, ASGIApp] | None = None,
        on_end: Callable[[Scope, int], None] | None = None,
    ) -> None:
        self._app = app
        self._on_end = on_end
        self._fast_paths = fast_paths or {}
        self._authenticator = authenticator
        self._max_body_bytes = max_body_bytes
        self._refusals = LogThrottle()
        self._report_due = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or WebSocket."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = _clean_id(headers.get(_ID_HEADER)) or new_id("req")
        logs.request_id.set(request_id)
        trace.trace_id.set(trace.extract(headers.get(_TRACE_HEADER)))
        scope.setdefault("state", {})["request_id"] = request_id
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send, headers)
        else:
            await self._http(scope, receive, send, headers, request_id)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes]) -> None:
        try:
            self._authenticator.check(scope["path"], headers)
        except RbeeError as error:
            await receive()
            # Starlette sends it as a plain HTTP response (ASGI's websocket.http.response extension).
            await error_response(error, None, scope["path"])(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _http(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], request_id: str
    ) -> None:
        began = time.perf_counter()
        status = 0
        routed = scope

        async def send_out(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (_ID_HEADER, request_id.encode())]
            await send(message)

        try:
            caller = self._authenticator.check(scope["path"], headers, scope["query_string"], method=scope["method"])
            scope["state"]["caller"], scope["state"]["client"] = caller, caller.name
            if caller is not ANONYMOUS:
                mark_authenticated(scope)
            self._check_length(headers.get(b"content-length"))
            encoding = headers.get(b"content-encoding")
            if encoding is not None:
                receive = decoded(receive, encoding, self._max_body_bytes)
            fast_path = self._fast_paths.get(scope["path"]) if scope["method"] == "POST" else None
            if fast_path is not None:
                scope["endpoint"] = fast_path
                await fast_path(scope, self._bounded(receive), send_out)
            else:
                routed = _for_fastapi(scope)
                await self._app(routed, self._bounded(receive), send_out)
        except RbeeError as error:
            scope["state"]["error"] = error
            await error_response(error, request_id, scope["path"])(scope, receive, send_out)
        except Exception:
            log.exception("BUG: unhandled error", extra={"fields": {"path": scope["path"][:MAX_PATH_CHARS]}})
            if not status:
                await error_response(internal_error(), request_id, scope["path"])(scope, receive, send_out)
        finally:
            # Without a status the client left before there was one.
            self._log(routed, scope["method"], status or _CLIENT_LEFT, time.perf_counter() - began)
            if self._on_end is not None:
                self._on_end(scope, status or _CLIENT_LEFT)
            # Its traceback holds the frames with the body, and these the state: a circle of megabytes that would wait
            # for the garbage collector.
            scope["state"].pop("error", None)

    def _check_length(self, text: bytes | None) -> None:
        if text is not None and text.isdigit() and int(text) > self._max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> RbeeError:
        return RbeeError(
            ErrorCode.PAYLOAD_TOO_LARGE,
            f"The request body is larger than {self._max_body_bytes} bytes.",
            details={"max_bytes": self._max_body_bytes},
        )

    def _bounded(self, receive: Receive) -> Receive:
        seen = 0

        async def receive_in() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self._max_body_bytes:
                    raise self._too_large()
            return message

        return receive_in

    def _log(self, scope: Scope, method: str, status: int, seconds: float) -> None:
        route = _route(scope)
        metrics.HTTP_REQUESTS.add(1, method, route, str(status))
        metrics.HTTP_SECONDS.observe(seconds, route)
        if status == _UNAUTHENTICATED and not self._refusals.admit():
            self._report_later()
            return
        level = logging.DEBUG if scope["path"] in _QUIET else logging.INFO
        fields: dict[str, Any] = {
            "method": method,
            "path": scope["path"][:MAX_PATH_CHARS],
            "status": status,
            "ms": round(seconds * 1000, 1),
        }
        client = scope["state"].get("client")
        if client:
            fields["client"] = client
        log.log(level, "request", extra={"fields": fields})

    def _report_later(self) -> None:
        """Log how many refusals were left out, once their interval is over."""
        if not self._report_due:
            self._report_due = True
            # Not as a part of the request that happens to be refused now.
            asyncio.get_running_loop().call_later(INTERVAL_S, self._report, context=contextvars.Context())

    def _report(self) -> None:
        self._report_due = False
        left_out = self._refusals.take_left_out()
        if left_out:
            fields = {"status": _UNAUTHENTICATED, "left_out": left_out}
            log.warning("more requests without a valid key", extra={"fields": fields})


def _for_fastapi(scope: Scope) -> Scope:
    """Return the request for FastAPI.

    HEAD is handled like GET, and the server omits the body. A body is JSON whatever its content type is (`curl -d`
    sends a form's): without one FastAPI leaves the parsing to `JsonBody`.
    """
    headers = [header for header in scope["headers"] if header[0] != b"content-type"]
    return {**scope, "method": "GET" if scope["method"] == "HEAD" else scope["method"], "headers": headers}


def _route(scope: Scope) -> str:
    """Return the path with the names of its parameters instead of their values; `other` if it is no route."""
    if "endpoint" not in scope:
        return "other"
    path: str = scope["path"]
    for name, value in scope.get("path_params", {}).items():
        path = path.replace(f"/{value}", f"/{{{name}}}", 1)
    return path


def _clean_id(text: bytes | None) -> str | None:
    """Return the caller's request id if it is short and plain."""
    if text is None or not 0 < len(text) <= 128:
        return None
    name = text.decode("latin-1")
    return name if name.replace("-", "").replace("_", "").replace(".", "").isalnum() and name.isascii() else None
