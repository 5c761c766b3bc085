"""A task's answer as raw ASGI: each event leaves as it comes, and a client that leaves ends the task."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rbee.daemonkit.http1 import writing
from rbee.queen.board import TaskBoard
from rbee.queen.recipients import EventRecipient, Recipient
from rbee.queen.tasks import Task


class TaskStream(Response):
    """Perform *task* while its client listens, and take it off *board* afterwards.

    *recipient* is the client's side, by default one of `/v2/tasks`.
    """

    media_type = "text/event-stream"

    def __init__(self, task: Task, board: TaskBoard, recipient: Recipient | None = None) -> None:
        super().__init__()
        self._task = task
        self._board = board
        self._recipient = recipient
        self._left = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer until the task has ended or its client has left."""
        recipient = self._recipient or EventRecipient(send, writing(scope))
        performing = asyncio.current_task()
        assert performing is not None
        leaving = asyncio.create_task(self._leave(receive, performing), name=f"client of {self._task.id}")
        try:
            await self._task.perform(recipient, scope.get("state", {}).get("request_id"))
        except asyncio.CancelledError:
            if not self._left:
                raise
            performing.uncancel()
            return
        finally:
            leaving.cancel()
            self._board.done(self._task)
        with contextlib.suppress(OSError):
            await recipient.end()

    async def _leave(self, receive: Receive, performing: asyncio.Task[None]) -> None:
        """End the task when its client leaves."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self._left = True
        performing.cancel()
