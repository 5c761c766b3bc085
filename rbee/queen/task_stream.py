"""A task's answer as raw ASGI: each event leaves as it comes, and a client that leaves ends the task."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rbee.daemonkit.sse import HEADERS
from rbee.queen.board import TaskBoard
from rbee.queen.tasks import Task


class TaskStream(Response):
    """Perform *task* while its client listens, and take it off *board* afterwards."""

    media_type = "text/event-stream"

    def __init__(self, task: Task, board: TaskBoard) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._task = task
        self._board = board

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the task has ended or its client has left."""
        left = False

        async def out(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        async def perform() -> None:
            await self._task.perform(out, scope.get("state", {}).get("request_id"))

        async def leave() -> None:
            nonlocal left
            while (await receive())["type"] != "http.disconnect":
                pass
            left = True

        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            performing = asyncio.create_task(perform(), name=self._task.id)
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
                await send({"type": "http.response.body", "body": b"", "more_body": False})
