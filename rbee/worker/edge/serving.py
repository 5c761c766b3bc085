"""Send an answer to its client, as a stream or at once; when the client leaves, the generations end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rbee.daemonkit.dialects import Dialect as Kind
from rbee.daemonkit.dialects import encode_failure
from rbee.daemonkit.errors import error_response, internal_error
from rbee.daemonkit.sse import HEADERS, PING
from rbee.errors import RbeeError
from rbee.worker.edge.answer import Answer, Dialect

log = logging.getLogger(__name__)


class EdgeAnswer(Response):
    """The response to a request for text.

    Args:
        dialect: writes for the client.
        kind: how a stream that breaks says so.
        cancel: ends the generations.
        stream: whether the client wants it as it comes.
    """

    def __init__(
        self, answer: Answer, dialect: Dialect, kind: Kind, *, cancel: Callable[[], None], stream: bool
    ) -> None:
        super().__init__(headers=HEADERS, media_type="text/event-stream")
        del self.headers["content-length"]
        self._answer = answer
        self._dialect = dialect
        self._kind = kind
        self._cancel = cancel
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer until all generations have ended."""
        leaving = asyncio.ensure_future(self._cancel_when_client_leaves(receive))
        over = False
        try:
            if self._stream:
                await self._streamed(scope.get("state", {}).get("request_id"), send)
            else:
                await self._at_once(scope, receive, send)
            over = True
        finally:
            leaving.cancel()
            if not over:
                self._cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await leaving

    async def _streamed(self, request_id: str | None, send: Send) -> None:
        async def out(data: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        async def tell(choice: int) -> None:
            async for data in self._answer.events(choice, self._dialect):
                await out(data or PING)

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await out(self._dialect.opening(self._answer.prompt_tokens))
        count = len(self._answer.generations)
        try:
            if count == 1:
                await tell(0)
            else:
                await asyncio.gather(*(tell(choice) for choice in range(count)))
        except RbeeError as error:
            self._cancel()
            await out(encode_failure(self._kind, error, request_id), more=False)
        except Exception:
            await out(encode_failure(self._kind, internal_error(), request_id), more=False)
            raise
        else:
            await out(self._dialect.closing(self._answer.usage), more=False)

    async def _at_once(self, scope: Scope, receive: Receive, send: Send) -> None:
        response: Response
        try:
            outcomes = await self._answer.outcomes()
            body = self._dialect.whole(outcomes, self._answer.usage)
            response = Response(body, media_type="application/json")
        except RbeeError as error:
            self._cancel()
            response = error_response(error, scope.get("state", {}).get("request_id"))
        with contextlib.suppress(OSError):
            await response(scope, receive, send)

    async def _cancel_when_client_leaves(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._cancel()
