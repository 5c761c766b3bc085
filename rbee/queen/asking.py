"""Ask one worker to take a request, and tell what it says: the head of its answer, or why it does not take it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import DEADLINE_HEADER
from rbee.contracts.workers import WorkerAccess, WorkerInfo
from rbee.daemonkit.background import BackgroundTasks
from rbee.errors import RbeeError
from rbee.queen.broken_off import crash, free_slot, where
from rbee.queen.errand import Errand
from rbee.queen.fleet_watch import FleetWatch
from rbee.queen.placement import Wish
from rbee.queen.upstream import Upstream, UpstreamBroken, UpstreamSilent
from rbee.queen.upstream_pool import UpstreamPool

ERROR_BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to be asked: the request's id, where it may run, its errand, and by when it must be done.

    `arrived` is a time of the event loop, `deadline_s` the seconds from then on. One that is `held` waits for a slot
    even where nothing is started for it.
    """

    id: str
    wish: Wish
    errand: Errand
    arrived: float
    deadline_s: float | None
    held: bool


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker that was given the request, the connection on which it answers, and our count of its use."""

    link: WorkerAccess
    upstream: Upstream
    warm: bool
    use: contextlib.ExitStack

    @property
    def worker(self) -> WorkerInfo:
        """Give the worker."""
        return self.link.worker


class Asking:
    """Asks for one order, whichever worker is thought of."""

    def __init__(self, order: Order, fleet: FleetWatch, pool: UpstreamPool, background: BackgroundTasks) -> None:
        self._order = order
        self._fleet = fleet
        self._pool = pool
        self._background = background

    async def ask(self, link: WorkerAccess, *, warm: bool) -> Seat:
        """Send the request to the worker and wait for the head of its answer, whatever its status is.

        Raises:
            OSError, TimeoutError: the worker cannot be reached.
            RbeeError: WORKER_STALLED, WORKER_CRASHED.
        """
        worker = link.worker
        with contextlib.ExitStack() as use:
            use.enter_context(self._fleet.using(worker.worker_id))
            try:
                upstream = await self._sent(link)
            except UpstreamSilent as error:
                await free_slot(self._pool, self._background, link, self._order.id)
                raise RbeeError(
                    ErrorCode.WORKER_STALLED,
                    f"Worker {worker.worker_id} on {worker.node} took the request, but {error}.",
                    details=where(worker),
                ) from error
            except UpstreamBroken as error:
                raise await crash(self._fleet, worker, 0, str(error)) from error
            return Seat(link, upstream, warm, use.pop_all())

    async def refusal(self, seat: Seat) -> RbeeError:
        """Read why the worker did not take the request, and let go of it."""
        worker, upstream = seat.worker, seat.upstream
        try:
            body = await upstream.read_all(ERROR_BODY_BYTES)
        except UpstreamBroken as error:
            return await crash(self._fleet, worker, 0, str(error))
        finally:
            self._pool.release(worker.url, upstream)
            seat.use.close()
        with contextlib.suppress(ValueError):
            error_ = RbeeError.from_body(json.loads(body))
            if error_ is not None:
                return error_
        return RbeeError(
            ErrorCode.INVALID_RESPONSE,
            f"{worker.url} answered HTTP {upstream.status}, but not as a worker does.",
            details={**where(worker), "status": upstream.status},
        )

    async def _sent(self, link: WorkerAccess) -> Upstream:
        errand = self._order.errand
        headers = dict(errand.headers)
        if self._order.deadline_s is not None:
            left = self._order.arrived + self._order.deadline_s - asyncio.get_running_loop().time()
            headers[DEADLINE_HEADER] = f"{max(0.001, left):.3f}"
        return await self._pool.send(
            "POST",
            link.worker.url,
            errand.path,
            key=link.api_key,
            request_id=self._order.id,
            body=errand.body,
            headers=headers,
        )
