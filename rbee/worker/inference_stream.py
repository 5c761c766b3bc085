"""Stream a generation to its client as server-sent events: the worker's hot path on the event loop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Final

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from rbee.contracts.tasks import DoneEvent
from rbee.daemonkit.disconnect import cancel_on_disconnect
from rbee.daemonkit.sse import DONE, HEADERS, encode, encode_error
from rbee.errors import RbeeError
from rbee.worker.generation import Event, Finished, Generation
from rbee.worker.progress_comments import PROGRESS_INTERVAL_S, ProgressComments

_TOKEN: Final = b'data: {"token":%b,"index":%d}\n\n'


class InferenceStream(Response):
    """The response to `POST /v1/inference`.

    All events of one engine step go out in one write, without a task of its own. When the client disconnects, *cancel*
    is called, and the stream waits for the engine to finish the generation.
    """

    media_type = "text/event-stream"

    def __init__(
        self, generation: Generation, comments: ProgressComments, *, cancel: Callable[[], object], began: float
    ) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._generation = generation
        self._comments = comments
        self._cancel = cancel
        self._began = began
        self._index = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the generation ends."""
        generation = self._generation
        request_id = scope.get("state", {}).get("request_id")
        more = True
        async with cancel_on_disconnect(receive, self._cancel):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            while more:
                events = await generation.next_events(PROGRESS_INTERVAL_S)
                if not events:
                    body = self._comments.next()
                    if body:
                        await send({"type": "http.response.body", "body": body, "more_body": True})
                    continue
                body = b"".join([self._encode(event, request_id) for event in events])
                more = isinstance(events[-1], str)
                message: Message = {"type": "http.response.body", "body": body, "more_body": more}
                await send(message)

    def _encode(self, event: Event, request_id: str | None) -> bytes:
        if isinstance(event, str):
            body = _TOKEN % (json.dumps(event).encode(), self._index)
            self._index += 1
            return body
        if isinstance(event, RbeeError):
            return encode_error(event, request_id)
        assert isinstance(event, Finished)  # this interface requests no log probabilities
        return encode(self._done(event)) + DONE

    def _done(self, finished: Finished) -> DoneEvent:
        generation = self._generation
        return DoneEvent(
            total_tokens=finished.total_tokens,
            duration_ms=round((time.monotonic() - self._began) * 1000),
            finish_reason=finished.finish_reason,
            prompt_tokens=len(generation.prompt),
            cached_tokens=finished.cached_tokens,
            device_ms=round(generation.device_s * 1000, 3),
            seed=generation.seed,
            drafted_tokens=generation.drafted or None,
            accepted_tokens=generation.accepted if generation.drafted else None,
        )
