"""Send an answer to its client, as a stream or as JSON, and cancel its work when the client disconnects."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rbee.contracts.ids import USAGE_COMMENT
from rbee.daemonkit.dialects import Dialect, encode_comment
from rbee.daemonkit.disconnect import cancel_on_disconnect
from rbee.daemonkit.errors import internal_error, send_error
from rbee.daemonkit.sse import HEADERS, comment
from rbee.errors import RbeeError
from rbee.worker.compat.answer import Answer, ResponseWriter, Usage
from rbee.worker.generation import usage_counts
from rbee.worker.progress_comments import ProgressComments

_MAX_HEADER_CHARS: Final = 1000
log = logging.getLogger(__name__)


class _CancelOnDisconnect(Response):
    """A response whose *cancel* is called when the client disconnects, or when the answer fails."""

    def __init__(self, media_type: str, cancel: Callable[[], object]) -> None:
        super().__init__(headers=HEADERS, media_type=media_type)
        del self.headers["content-length"]
        self._cancel = cancel
        self._path = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response to its end."""
        self._path = scope["path"]
        async with cancel_on_disconnect(receive, self._cancel):
            await self._send(scope.get("state", {}).get("request_id"), send)

    @abstractmethod
    async def _send(self, request_id: str | None, send: Send) -> None:
        """Send everything."""


class StreamingAnswer(_CancelOnDisconnect):
    """The answer as it is generated.

    Args:
        comments: what to send in silence.
        cancel: cancels the generations.
        count: write the token counts in comments, for a queen, which counts for each of its clients.
        dialect: in one of JSON lines a comment is a line, which only a queen is sent and takes out.
    """

    def __init__(
        self,
        answer: Answer,
        writer: ResponseWriter,
        comments: ProgressComments,
        *,
        cancel: Callable[[], object],
        count: bool,
        dialect: Dialect = Dialect.OPENAI,
    ) -> None:
        super().__init__(dialect.media_type, cancel)
        self._answer = answer
        self._writer = writer
        self._comments = comments
        self._count = count
        self._lines = dialect is Dialect.OLLAMA

    async def _send(self, request_id: str | None, send: Send) -> None:
        async def write(data: bytes, *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": more})

        async def stream(choice: int) -> None:
            async for data in self._answer.events(choice, self._writer):
                if data := data or self._framed(self._comments.next()):
                    await write(data)

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        prompt_tokens = self._answer.prompt_tokens
        await write(self._counted(Usage(prompt_tokens, 0, 0)) + self._writer.start(prompt_tokens))
        count = len(self._answer.generations)
        try:
            if count == 1:
                await stream(0)
            else:
                await _gather(stream(choice) for choice in range(count))
        except RbeeError as error:
            self._cancel()
            await write(self._writer.fail(error, request_id), more=False)
        except Exception:
            await write(self._writer.fail(internal_error(), request_id), more=False)
            raise
        else:
            usage = self._answer.usage
            await write(self._counted(usage) + self._writer.end(usage), more=False)

    def _counted(self, usage: Usage) -> bytes:
        return self._framed(counted(usage)) if self._count else b""

    def _framed(self, text: bytes) -> bytes:
        """Return a comment as it is told among lines of JSON: to a queen as a line, to a client as space."""
        if not self._lines or not text:
            return text
        return text[:-1] if self._count else encode_comment(Dialect.OLLAMA, "")


class JsonAnswer(_CancelOnDisconnect):
    """The complete answer as JSON.

    Args:
        render: returns the body, and what it used.
        cancel: cancels the work.
        routed: by a queen, which lets others wait in line until it has the headers: they are sent before the work is
            done, and the body of an answer that fails is then the error's, which the queen gives its client as one.
            It counts for each of its clients: what was used follows the body in a comment, which it takes out.
    """

    def __init__(
        self, render: Callable[[], Awaitable[tuple[bytes, Usage]]], *, cancel: Callable[[], object], routed: bool
    ) -> None:
        super().__init__("application/json", cancel)
        self._render = render
        self._routed = routed

    async def _send(self, request_id: str | None, send: Send) -> None:
        if self._routed:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b"", "more_body": True})
        try:
            body, usage = await self._render()
        except RbeeError as error:
            self._cancel()
            log.info("answer failed", extra={"fields": {"code": error.code.value, "reason": error.message}})
            with contextlib.suppress(OSError):
                if self._routed:
                    whole = json.dumps(error.body(request_id)).encode()
                    await send({"type": "http.response.body", "body": whole, "more_body": False})
                else:
                    await send_error(error, request_id, self._path, send)
            return
        if self._routed:
            body += b"\n" + counted(usage)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


def counted(usage: Usage) -> bytes:
    """Return a comment of what a request used, for a queen."""
    return comment(f"{USAGE_COMMENT} {usage_counts(usage.prompt, usage.cached, usage.answer, usage.device_s)}")


def header_text(items: Iterable[str]) -> str:
    """Return a list as the value of a header, without what may not be in one, and not longer than clients take."""
    text = ", ".join(dict.fromkeys(items))
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:_MAX_HEADER_CHARS]


async def _gather(streams: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait for all of them; the first that fails cancels the others."""
    tasks = [asyncio.ensure_future(one) for one in streams]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
