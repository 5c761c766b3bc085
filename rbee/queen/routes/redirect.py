"""Redirect a client to the worker itself, so that its tokens do not pass through the queen."""

from __future__ import annotations

import logging
import time
from typing import Final
from urllib.parse import urlencode, urlsplit

from starlette.types import Send

from rbee.contracts.workers import WorkerAccess
from rbee.daemonkit import tickets
from rbee.daemonkit.sockets import is_loopback
from rbee.observe import metrics
from rbee.queen.daemon import Queen
from rbee.queen.keys.access import Client
from rbee.queen.scheduling.placement import UseWorker
from rbee.queen.tasks.upstream_request import CompatRequest, placement_request
from rbee.queen.usage.ledger import Usage

log = logging.getLogger(__name__)
HEADER: Final = b"x-rbee-direct"
_TRUE: Final = (b"true", b"1", b"yes")


def is_requested(headers: dict[bytes, bytes]) -> bool:
    """Return whether the client asks for it."""
    return headers.get(HEADER, b"").lower() in _TRUE


def find_worker(queen: Queen, request: CompatRequest, client: str, client_host: str) -> WorkerAccess | None:
    """Return the worker to which *client*, at *client_host*, may be redirected; None where the queen must relay.

    That is so where a worker must be started, where all slots are taken or somebody waits for one, and where the worker
    listens only on its own machine and the client is on another one.
    """
    placement = placement_request(request, queen.client_ids.id(client), served=request.served)
    if queen.drain.draining.is_set() or queen.tasks.waiting or not queen.readiness.is_settled(placement):
        return None
    decision = queen.fleet.place(placement)
    if not isinstance(decision, UseWorker) or not decision.free:
        return None
    worker = decision.link.worker
    if is_loopback(urlsplit(worker.url).hostname or "") and not is_loopback(client_host):
        return None
    queen.fleet.record_prompt(worker, placement)
    return decision.link


def count(queen: Queen, client: Client, model: str, link: WorkerAccess) -> None:
    """Count a request for *model* that the worker answers itself; its tokens are known there only."""
    worker = link.worker
    metrics.QUEEN_TASKS.add(1, "direct", client.name)
    queen.usage.record(client.name, model, Usage(1))
    fields = {"client": client.name, "worker_id": worker.worker_id, "model": worker.model_ref}
    log.info("task direct", extra={"fields": fields})


async def redirect(link: WorkerAccess, path: str, client_id: str, send: Send) -> None:
    """Answer with the worker's address and a ticket for one request to it, by the client with this id."""
    ticket = tickets.issue(link.api_key, path, now=time.time(), client=client_id)
    location = f"{link.worker.url}{path}?{urlencode({tickets.PARAMETER: ticket})}"
    headers = [(b"location", location.encode("ascii")), (b"content-length", b"0"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 307, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
