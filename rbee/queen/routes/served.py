"""Served models: list what is declared, declare a model, remove a declaration."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from rbee.config import served
from rbee.contracts.errors import ErrorCode
from rbee.contracts.explain import ExplainQuery, Explanations, PlanRequest, ServedPlan
from rbee.contracts.served import ServedInfo, ServedList, ServedModel, ServedSpec, contradictions
from rbee.daemonkit.json_body import JsonBody
from rbee.errors import RbeeError
from rbee.queen.daemon import Queen
from rbee.queen.fleet.estimates import learn_needs
from rbee.queen.routes.dependencies import ClientDep, QueenDep
from rbee.queen.routes.model_access import find_model
from rbee.queen.scheduling.request import PlacementRequest
from rbee.queen.serving.declarations import contradictory
from rbee.queen.serving.explain import explain, planned

router = APIRouter(prefix="/v2/served")
explaining = APIRouter()


@router.get("")
async def list_served(queen: QueenDep) -> ServedList:
    """List the declared models, each with its workers and why it is not as declared."""
    return ServedList(
        served=[queen.serving.info(declared) for declared in queen.declarations.all()], problem=queen.served.problem
    )


@router.post("/plan")
async def plan(queen: QueenDep, body: JsonBody[PlanRequest]) -> ServedPlan:
    """Return what would be done next if declarations were changed; nothing is."""
    models = {declared.model.name: declared.model for declared in queen.declarations.all()}
    for name in body.remove:
        if models.pop(name, None) is None:
            hint = "List the declared models: rbee-keeper models served"
            raise RbeeError(ErrorCode.MODEL_NOT_FOUND, f"{name} is not declared.", hint=hint, param="remove")
    models |= {model.name: _model(queen, model.name, model) for model in body.put}
    if problems := list(contradictions(models.values())):
        raise contradictory(problems)
    for model in models.values():
        await learn_needs(queen.fleet, queen.channels, PlacementRequest(model.model, served=model))
    return planned(queen.fleet.view(), queen.serving.plan(list(models.values())))


@router.put("/{name}")
async def declare(queen: QueenDep, name: str, body: JsonBody[ServedSpec]) -> ServedInfo:
    """Declare a model, or change its declaration; it is kept over a restart of the queen."""
    queen.drain.check()
    return queen.serving.info(await queen.served.put(_model(queen, name, body)))


@router.delete("/{name}", status_code=204, response_class=Response)
async def remove(queen: QueenDep, name: str) -> None:
    """Remove the declaration of a model."""
    await queen.served.remove(name)


@explaining.get("/v2/explain")
async def explain_model(queen: QueenDep, client: ClientDep, query: Annotated[ExplainQuery, Query()]) -> Explanations:
    """Tell for every node and device whether a model runs there, could, or why not."""
    model = await find_model(queen, client, query.model)
    await queen.readiness.wait_for_catalogs()
    aliases = queen.fleet.spellings(model.reference)
    request = PlacementRequest(model.reference, aliases=aliases, served=model.served)
    await learn_needs(queen.fleet, queen.channels, request)
    return explain(
        queen.fleet.view(), request, None if model.served is None else queen.serving.status(model.served.name)
    )


def _model(queen: Queen, name: str, spec: ServedSpec) -> ServedModel:
    """Return a declaration with its name, and the reference for an alias. Raises RbeeError INVALID_REQUEST."""
    fields = spec.model_dump(exclude_unset=True, exclude={"name"})
    model, findings = served.parse(name, fields, queen.tasks.aliases)
    if model is None:
        finding = findings[0]
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            f"{finding.reason}.",
            param=".".join(finding.path) or None,
            details={"errors": [{"field": ".".join(each.path), "reason": each.reason} for each in findings[:10]]},
        )
    return model
