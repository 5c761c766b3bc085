"""Tasks: run an inference, cancel one."""

from __future__ import annotations

from starlette.requests import Request

from rbee.contracts.tasks import TaskRequest
from rbee.daemonkit.operations import Routes
from rbee.queen.daemon import Queen
from rbee.queen.tasks.task import TaskStream

routes = Routes[Queen]("/v2/tasks")


@routes.post("")
async def run(queen: Queen, body: TaskRequest, request: Request) -> TaskStream:
    """Run an inference somewhere in the fleet; the answer is a stream of events."""
    named = body.model_copy(update={"model": queen.tasks.reference(body.model)})
    return TaskStream(queen.tasks.admit(named, _client(request), draining=queen.drain.draining.is_set()))


@routes.delete("/{task_id}")
async def cancel(queen: Queen, task_id: str, request: Request) -> None:
    """Cancel a task; one that has ended or does not exist is ignored."""
    await queen.tasks.cancel(task_id, _client(request))


def _client(request: Request) -> str:
    """Return whose request it is: the operator's, or that of a client with a key of its own."""
    return str(request.scope["state"]["client"])
