"""Find the model that a caller means by a name, as far as its key allows."""

from __future__ import annotations

import logging
from typing import NamedTuple

from rbee.contracts.keys import Right
from rbee.errors import RbeeError
from rbee.queen.client_view import reduced_error
from rbee.queen.daemon import Queen
from rbee.queen.fleet.model_names import SCHEMES, declared_names, no_such_model, resolve, resolve_declared
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
    raise no_such_model(name, declared_names(aliases, hives, client.models))


async def _wait_for_models(queen: Queen, name: str) -> None:
    await queen.readiness.ensure(PlacementRequest(name))
    await queen.readiness.wait_for_catalogs()
