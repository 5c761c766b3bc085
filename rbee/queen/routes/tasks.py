"""Tasks: run an inference, cancel one."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rbee.contracts.tasks import TaskRequest
from rbee.daemonkit.json_body import JsonBody
from rbee.queen.routes.dependencies import QueenDep
from rbee.queen.tasks.task import TaskStream

router = APIRouter(prefix="/v2/tasks")


@router.post("", status_code=200, response_class=TaskStream)
async def run(queen: QueenDep, body: JsonBody[TaskRequest], request: Request) -> TaskStream:
    """Run an inference somewhere in the fleet; the answer is a stream of events."""
    named = body.model_copy(update={"model": queen.tasks.reference(body.model)})
    return TaskStream(queen.tasks.admit(named, _client(request), draining=queen.drain.draining.is_set()))


@router.delete("/{task_id}", status_code=204, response_class=Response)
async def cancel(queen: QueenDep, task_id: str, request: Request) -> None:
    """Cancel a task; one that has ended or does not exist is ignored."""
    await queen.tasks.cancel(task_id, _client(request))


def _client(request: Request) -> str:
    """Return whose request it is: the operator's, or that of a client with a key of its own."""
    return str(request.scope["state"]["client"])
