"""A task's answer as raw ASGI: each event leaves as it comes, and a client that leaves ends the task."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rbee.daemonkit.http1 import ClientConnection, connection_of
from rbee.queen.board import TaskBoard
from rbee.queen.recipients import EventRecipient, Recipient
from rbee.queen.tasks import Task


class TaskStream(Response):
    """Perform *task* while its client listens, and take it off *board* afterwards."""

    media_type = "text/event-stream"

    def __init__(self, task: Task, board: TaskBoard) -> None:
        super().__init__()
        self._task = task
        self._board = board

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer until the task has ended or its client has left."""
        del receive
        wire = connection_of(scope)
        await perform(self._task, self._board, EventRecipient(send, wire), wire, scope["state"]["request_id"])


async def perform(task: Task, board: TaskBoard, recipient: Recipient, wire: ClientConnection, request_id: str) -> None:
    """Have *recipient* told what becomes of *task*, until it has ended or its client has left."""
    performing = asyncio.current_task()
    assert performing is not None
    left = False

    def leave() -> None:
        nonlocal left
        left = True
        performing.cancel()

    wire.on_disconnect(leave)
    try:
        await task.perform(recipient, request_id)
    except asyncio.CancelledError:
        if not left:
            raise
        performing.uncancel()
        return
    finally:
        wire.on_disconnect(None)
        board.done(task)
    with contextlib.suppress(OSError):
        await recipient.end()
