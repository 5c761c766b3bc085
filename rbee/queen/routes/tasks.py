"""Tasks: run an inference, cancel one."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from rbee.contracts.tasks import TaskRequest
from rbee.queen.deps import Client, QueenDep
from rbee.queen.task_stream import TaskStream

router = APIRouter(prefix="/v2/tasks")


@router.post("", response_class=Response)
async def run(request: TaskRequest, queen: QueenDep, client: Client) -> TaskStream:
    """Run an inference somewhere in the fleet; answered by its events."""
    named = request.model_copy(update={"model": queen.board.reference(request.model)})
    return TaskStream(queen.board.accept(named, client, draining=queen.drain.draining.is_set()), queen.board)


@router.delete("/{task_id}", status_code=204)
async def cancel(task_id: str, queen: QueenDep, client: Client) -> None:
    """Cancel a task; one that has ended or never was is fine."""
    await queen.board.cancel(task_id, client)
