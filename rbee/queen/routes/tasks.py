"""Tasks: run an inference, cancel one."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from rbee.contracts.tasks import TaskRequest
from rbee.daemonkit.json_body import JsonBody
from rbee.queen.routes.dependencies import QueenDep
from rbee.queen.task_stream import TaskStream

router = APIRouter(prefix="/v2/tasks")


@router.post("", status_code=200, response_class=TaskStream)
async def run(queen: QueenDep, body: JsonBody[TaskRequest], request: Request) -> TaskStream:
    """Run an inference somewhere in the fleet; answered by its events."""
    named = body.model_copy(update={"model": queen.board.reference(body.model)})
    task = queen.board.accept(named, _client(request), draining=queen.drain.draining.is_set())
    return TaskStream(task, queen.board)


@router.delete("/{task_id}", status_code=204, response_class=Response)
async def cancel(queen: QueenDep, task_id: str, request: Request) -> None:
    """Cancel a task; one that has ended or never was is fine."""
    await queen.board.cancel(task_id, _client(request))


def _client(request: Request) -> str:
    """Give whose request it is: the operator's, or that of a client with a key of its own."""
    return str(request.scope["state"]["client"])
