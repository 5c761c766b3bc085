"""Send a client only what clients may see of its task (`client_view`); its answer passes unchanged."""

from __future__ import annotations

from collections.abc import Callable

from rbee.contracts.tasks import Narration
from rbee.errors import RbeeError
from rbee.queen.client_view import reduced_error, reduced_event
from rbee.queen.progress import Event
from rbee.queen.relay.response_sink import ResponseSink


class ClientSink:
    """*sink* for a client that is no operator."""

    def __init__(self, sink: ResponseSink) -> None:
        # The hot path of a stream: the sink's own methods.
        self.write: Callable[[bytes], bool] = sink.write
        self.send = sink.send
        self.comment = sink.comment
        self.start = sink.start
        self.end = sink.end
        self._sink = sink
        self._last: object = None

    async def emit(self, event: Event) -> None:
        """Report what a client may see of the event; what reads the same twice in a row is said once."""
        reduced = reduced_event(event)
        said = reduced.human if isinstance(reduced, Narration) else reduced
        if reduced is not None and said != self._last:
            self._last = said
            await self._sink.emit(reduced)

    async def fail(self, error: RbeeError, request_id: str | None) -> None:
        """Report what a client may see of the error."""
        await self._sink.fail(reduced_error(error), request_id)
