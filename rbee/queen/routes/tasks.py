"""Tasks: run an inference, cancel one."""

from __future__ import annotations

from starlette.requests import Request

from rbee.contracts.tasks import TaskRequest
from rbee.daemonkit.operations import Routes
from rbee.queen.daemon import Queen
from rbee.queen.task_stream import TaskStream

routes = Routes[Queen]("/v2/tasks")


@routes.post("")
async def run(queen: Queen, body: TaskRequest, request: Request) -> TaskStream:
    """Run an inference somewhere in the fleet; answered by its events."""
    named = body.model_copy(update={"model": queen.board.reference(body.model)})
    task = queen.board.accept(named, _client(request), draining=queen.drain.draining.is_set())
    return TaskStream(task, queen.board)


@routes.delete("/{task_id}")
async def cancel(queen: Queen, task_id: str, request: Request) -> None:
    """Cancel a task; one that has ended or never was is fine."""
    await queen.board.cancel(task_id, _client(request))


def _client(request: Request) -> str:
    """Give whose request it is: the operator's, or that of a client with a key of its own."""
    return str(request.scope["state"]["client"])
