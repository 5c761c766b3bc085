"""Find the models that a caller means by a name, and those that it may use, as far as its key allows."""

from __future__ import annotations

import logging
from typing import NamedTuple

from rbee.contracts.errors import ErrorCode
from rbee.contracts.keys import Right
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
from rbee.queen.scheduling.placement import PlacementRequest

log = logging.getLogger(__name__)


class NamedModel(NamedTuple):
    """A reference, and whether its model may be fetched where it is not."""

    reference: str
    may_fetch: bool


async def find_model(queen: Queen, client: Client, name: str) -> NamedModel:
    """Return the model that *client* means.

    For what may be the name of a file, wait until the hives have reported their models.

    Raises RbeeError: FORBIDDEN, MODEL_NOT_FOUND, INVALID_REQUEST for the name of several files.
    """
    aliases = queen.tasks.aliases
    check_model(client, name, aliases)
    if name in aliases or name in aliases.values():
        return NamedModel(aliases.get(name, name), may_fetch=True)
    if client.operates:
        if not name.startswith(SCHEMES):
            await _wait_for_models(queen, name)
        return NamedModel(resolve(name, aliases, queen.fleet.registry.hives()), may_fetch=True)
    try:
        await _wait_for_models(queen, name)
    except RbeeError as error:
        fields = {"client": client.name, "code": error.code.value, "reason": error.message}
        log.warning("task refused", extra={"fields": fields})
        raise reduced_error(error) from error
    hives = queen.fleet.registry.hives()
    reference = resolve_declared(name, aliases, hives)
    if reference is not None:
        return NamedModel(reference, may_fetch=False)
    if name.startswith(SCHEMES):
        require(client, Right.OPERATE, "naming a model that is not declared")
    raise no_such_model(name, list(declared_names(aliases, hives, client.models)))


async def listed_models(queen: Queen, client: Client) -> list[ListedModel]:
    """List the models that *client* may use: aliases, and what is in a catalog or served somewhere."""
    await queen.readiness.wait_for_catalogs()
    aliases, hives = queen.tasks.aliases, queen.fleet.registry.hives()
    if client.operates and client.models is None:
        names = taken_names(aliases, hives)
    else:
        names = declared_names(aliases, hives, client.models)
    known = fleet_models(queen)
    return [known.listed(name, queen.fleet.spellings(names[name]), created=queen.started_unix) for name in names]


async def listed_model(queen: Queen, client: Client, name: str) -> ListedModel:
    """Return one model that *client* may use, by any of its names; there is no other one for it.

    Raises RbeeError as `find_model` does, but no FORBIDDEN.
    """
    try:
        reference = (await find_model(queen, client, name)).reference
    except RbeeError as error:
        if error.code is not ErrorCode.FORBIDDEN:
            raise
        reference = None
    aliases, hives = queen.tasks.aliases, queen.fleet.registry.hives()
    if reference is None or not (name in aliases or is_listed(reference, aliases, hives)):
        raise no_such_model(name, [model.name for model in await listed_models(queen, client)])
    known = fleet_models(queen)
    return known.listed(name, queen.fleet.spellings(reference), created=queen.started_unix)


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
