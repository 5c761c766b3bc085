"""Ask a worker for something short."""

from __future__ import annotations

from typing import Final

from rbee.contracts.ids import ROUTED_HEADER, new_id
from rbee.contracts.workers import WorkerAccess
from rbee.queen.relay.pool import UpstreamPool

MAX_BYTES: Final = 1024 * 1024


async def fetch(pool: UpstreamPool, link: WorkerAccess, path: str) -> bytes:
    """Return the body of a worker's answer to a GET, whatever its status is, and at most `MAX_BYTES` of it.

    Raises OSError, TimeoutError, UpstreamError where it does not answer.
    """
    worker = link.worker
    upstream = await pool.send(
        "GET",
        worker.url,
        path,
        key=link.api_key,
        node=worker.node,
        request_id=new_id("req"),
        headers={ROUTED_HEADER: "queen"},
    )
    try:
        return await upstream.read_all(MAX_BYTES)
    finally:
        pool.release(worker.url, upstream)
