"""Tasks: run an inference, cancel one."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter
from starlette.responses import Response

from rbee.contracts.keys import Right
from rbee.contracts.tasks import TaskRequest
from rbee.daemonkit.json_body import JsonBody
from rbee.queen.keys.access import check_model, check_placement, placement_fields, require
from rbee.queen.routes.dependencies import ClientDep, QueenDep
from rbee.queen.routes.model_access import NamedModel, find_model
from rbee.queen.tasks.fallback import Fallbacks
from rbee.queen.tasks.task import TaskStream
from rbee.queen.tasks.upstream_request import task_to_alternative, task_with_preset

router = APIRouter(prefix="/v2/tasks")


@router.post("", status_code=200, response_class=TaskStream)
async def run(queen: QueenDep, client: ClientDep, body: JsonBody[TaskRequest]) -> TaskStream:
    """Run an inference somewhere in the fleet; the answer is a stream of events."""
    require(client, Right.INFER, "running inference")
    check_placement(client, placement_fields(body))
    if client.operates and queen.declarations.find(body.model) is None:
        # Any spelling of a reference is left to the hives, which know all of them.
        check_model(client, body.model, queen.tasks.aliases)
        model = NamedModel(queen.tasks.reference(body.model), may_fetch=True)
    else:
        model = await find_model(queen, client, body.model)
    preset, fallbacks = None, None
    if model.served is not None:
        preset = model.served.presets.get(body.model)
        if alternatives := queen.declarations.fallbacks(model.served):
            fallbacks = Fallbacks(body.model, alternatives, partial(task_to_alternative, body))
    named = task_with_preset(body, preset).model_copy(update={"model": model.reference})
    draining = queen.drain.draining.is_set()
    return TaskStream(
        queen.tasks.admit(
            named,
            client,
            model=body.model,
            draining=draining,
            may_fetch=model.may_fetch,
            served=model.served,
            fallbacks=fallbacks,
        )
    )


@router.delete("/{task_id}", status_code=204, response_class=Response)
async def cancel(queen: QueenDep, client: ClientDep, task_id: str) -> None:
    """Cancel a task; one that has ended or does not exist is ignored."""
    await queen.tasks.cancel(task_id, client)
