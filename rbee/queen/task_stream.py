"""A task's answer as raw ASGI: each event leaves as it comes, and a client that leaves ends the task."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rbee.queen.board import TaskBoard
from rbee.queen.recipients import EventRecipient, Recipient
from rbee.queen.tasks import Task


class TaskStream(Response):
    """Perform *task* while its client listens, and take it off *board* afterwards.

    *recipient* says in which form the client is told.
    """

    media_type = "text/event-stream"

    def __init__(self, task: Task, board: TaskBoard, recipient: Callable[[Send], Recipient] = EventRecipient) -> None:
        super().__init__()
        self._task = task
        self._board = board
        self._recipient = recipient

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer until the task has ended or its client has left."""
        left = False
        recipient = self._recipient(send)

        async def leave() -> None:
            nonlocal left
            while (await receive())["type"] != "http.disconnect":
                pass
            left = True

        try:
            work = self._task.perform(recipient, scope.get("state", {}).get("request_id"))
            performing = asyncio.create_task(work, name=self._task.id)
            leaving = asyncio.create_task(leave(), name=f"client of {self._task.id}")
            try:
                await asyncio.wait({performing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                performing.cancel()
                leaving.cancel()
                await asyncio.gather(performing, leaving, return_exceptions=True)
        finally:
            self._board.done(self._task)
        if not left:
            with contextlib.suppress(OSError):
                await recipient.end()
