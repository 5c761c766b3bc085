"""Unload a model because an operator asks for it, by whichever interface."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final

from rbee.queen.daemon import Queen
from rbee.queen.fleet.heard import hear_of_ends
from rbee.queen.keys.access import Client
from rbee.queen.routes.model_access import find_model, not_loaded, workers_of

_KEEPING: Final = ("/api/chat", "/api/generate")
_NO_TIME: Final = re.compile(r"0+(\.0*)?(ns|us|ms|s|m|h)?")


async def unload_model(queen: Queen, client: Client, name: str) -> None:
    """Stop all workers of a model. Raises RbeeError: as `find_model` does, WORKER_NOT_FOUND where there are none."""
    workers = workers_of(queen, await find_model(queen, client, name))
    if not workers:
        raise not_loaded(name)
    await asyncio.gather(*(queen.channels.client(worker.node).stop(worker.worker_id) for worker in workers))
    await hear_of_ends(queen.fleet, [worker.worker_id for worker in workers])


def asks_to_unload(path: str, fields: Mapping[str, Any]) -> bool:
    """Return whether a request is Ollama's way to unload a model: nothing to answer, and no time to stay loaded."""
    if path not in _KEEPING or fields.get("prompt") or fields.get("messages"):
        return False
    stays = fields.get("keep_alive")
    if isinstance(stays, str):
        return _NO_TIME.fullmatch(stays) is not None
    return isinstance(stays, int | float) and not isinstance(stays, bool) and stays == 0
