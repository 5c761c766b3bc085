"""Find the models that a caller means by a name, and those that it may use, as far as its key allows."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from rbee.contracts.errors import ErrorCode
from rbee.contracts.keys import Right
from rbee.contracts.workers import WorkerInfo
from rbee.daemonkit.dialects import LATEST
from rbee.daemonkit.model_lists import ListedModel
from rbee.errors import RbeeError
from rbee.queen.client_view import reduced_error
from rbee.queen.daemon import Queen
from rbee.queen.fleet.model_lists import FleetModels
from rbee.queen.fleet.model_names import (
    SCHEMES,
    declared_names,
    is_listed,
    no_such_model,
    resolve,
    resolve_declared,
    taken_names,
)
from rbee.queen.keys.access import Client, check_model, require
from rbee.queen.scheduling.request import PlacementRequest

if TYPE_CHECKING:
    from rbee.contracts.served import ServedModel

log = logging.getLogger(__name__)


class NamedModel(NamedTuple):
    """A reference, whether its model may be fetched where it is not, and the declared model if that was named."""

    reference: str
    may_fetch: bool
    served: ServedModel | None = None


async def find_model(queen: Queen, client: Client, name: str) -> NamedModel:
    """Return the model that *client* means: a declared one or a preset of it, then an alias, then any other.

    For what may be the name of a file, wait until the hives have reported their models.

    Raises RbeeError: FORBIDDEN, MODEL_NOT_FOUND, INVALID_REQUEST for the name of several files.
    """
    aliases = queen.tasks.aliases
    check_model(client, name, aliases)
    declared = queen.declarations.find(name)
    if declared is not None:
        return NamedModel(declared.model.model, may_fetch=True, served=declared.model)
    if name in aliases or name in aliases.values():
        return NamedModel(aliases.get(name, name), may_fetch=True)
    if name in queen.fleet.registry.models.references:
        return NamedModel(name, may_fetch=client.operates)
    if client.operates:
        if not name.startswith(SCHEMES):
            await _wait_for_models(queen, name)
        served = queen.declarations.names()
        return NamedModel(resolve(name, aliases, queen.fleet.registry.models, served=served), may_fetch=True)
    try:
        await _wait_for_models(queen, name)
    except RbeeError as error:
        fields = {"client": client.name, "code": error.code.value, "reason": error.message}
        log.warning("task refused", extra={"fields": fields})
        raise reduced_error(error) from error
    known = queen.fleet.registry.models
    reference = resolve_declared(name, aliases, known)
    if reference is not None:
        return NamedModel(reference, may_fetch=False)
    if name.startswith(SCHEMES):
        require(client, Right.OPERATE, "naming a model that is not declared")
    raise no_such_model(name, [*served_names(queen, client), *declared_names(aliases, known, client.models)])


def reference_of(queen: Queen, name: str) -> str:
    """Return the reference of a declared model, a preset or an alias; any other name is one already."""
    declared = queen.declarations.find(name)
    return queen.tasks.reference(name) if declared is None else declared.model.model


async def listed_models(queen: Queen, client: Client) -> list[ListedModel]:
    """List the models that *client* may use: declared ones, aliases, and what is in a catalog or served somewhere."""
    await queen.readiness.wait_for_catalogs()
    aliases, known = queen.tasks.aliases, queen.fleet.registry.models
    if client.operates and client.models is None:
        names = taken_names(aliases, known)
    else:
        names = declared_names(aliases, known, client.models)
    served = served_names(queen, client)
    found = {name: NamedModel(reference, may_fetch=True) for name, reference in names.items() if name not in served}
    models = fleet_models(queen)
    return [_listed(queen, models, name, model) for name, model in (served | found).items()]


async def listed_model(queen: Queen, client: Client, name: str) -> ListedModel:
    """Return one model that *client* may use, by any of its names; there is no other one for it.

    Raises RbeeError as `find_model` does, but no FORBIDDEN.
    """
    try:
        model = await find_model(queen, client, name)
    except RbeeError as error:
        if error.code is not ErrorCode.FORBIDDEN:
            raise
        model = None
    aliases, known = queen.tasks.aliases, queen.fleet.registry.models
    if model is None or not (model.served or name in aliases or is_listed(model.reference, aliases, known)):
        raise no_such_model(name, [model.name for model in await listed_models(queen, client)])
    return _listed(queen, fleet_models(queen), name, model)


def served_names(queen: Queen, client: Client) -> dict[str, NamedModel]:
    """List the names of declared models, and of their presets, by which *client* may ask."""
    return {
        name: NamedModel(declared.model.model, may_fetch=True, served=declared.model)
        for declared in queen.declarations.all()
        for name in declared.model.names
        if client.models is None or name in client.models
    }


def workers_of(queen: Queen, model: NamedModel) -> list[WorkerInfo]:
    """List the workers of a model, in whatever state; of a declared one those that were started for it."""
    return fleet_models(queen).workers(queen.fleet.spellings(model.reference), model.served)


def _listed(queen: Queen, known: FleetModels, name: str, model: NamedModel) -> ListedModel:
    spellings = queen.fleet.spellings(model.reference)
    return known.listed(name, spellings, created=queen.started_unix, served=model.served)


def fleet_models(queen: Queen) -> FleetModels:
    """Return the models of the fleet as it is now."""
    return FleetModels(queen.fleet.registry, queen.starter.starting)


def plain_name(queen: Queen, name: str | None) -> str:
    """Return a name as it is known here: Ollama's clients add a tag. Raises RbeeError INVALID_REQUEST for none."""
    if name is None:
        raise RbeeError(ErrorCode.INVALID_REQUEST, "'model' is required.", param="model")
    return name if name in queen.tasks.aliases else name.removesuffix(LATEST)


def not_loaded(name: str) -> RbeeError:
    """Build the error for a model that no worker serves now."""
    return RbeeError(
        ErrorCode.WORKER_NOT_FOUND,
        f"{name} is not loaded.",
        hint="Load it with POST /models/load, or with any request to it.",
        param="model",
    )


async def _wait_for_models(queen: Queen, name: str) -> None:
    await queen.readiness.ensure(PlacementRequest(name))
    await queen.readiness.wait_for_catalogs()
