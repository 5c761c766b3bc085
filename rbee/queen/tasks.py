"""Tasks: what each of them goes through, from the wish to the last token."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import new_id
from rbee.contracts.tasks import TaskAccepted, TaskPlaced, TaskRequest
from rbee.daemonkit.sse import PING_INTERVAL_S
from rbee.errors import RbeeError
from rbee.observe import metrics
from rbee.queen.asking import Order, Seat
from rbee.queen.broken_off import crash, free_slot, where
from rbee.queen.errand import EdgeRequest, errand_of, wish_of
from rbee.queen.recipients import Recipient
from rbee.queen.relay import StreamWatch, relay, relay_whole
from rbee.queen.seating import Means, Seating
from rbee.queen.turns import Turn
from rbee.queen.upstream import UpstreamBroken

log = logging.getLogger(__name__)

PLACE_INTERVAL_S = 1.0
_PLACES_A_PING = round(PING_INTERVAL_S / PLACE_INTERVAL_S)


class Task:
    """One inference on its way through the fleet; *client* is whose it is."""

    def __init__(self, request: TaskRequest | EdgeRequest, means: Means, client: str) -> None:
        self.id = new_id("task")
        self.client = client
        self.wish = wish_of(request)
        terms = request.terms if isinstance(request, EdgeRequest) else request
        self.ended = asyncio.Event()
        self._means = means
        self._priority = terms.priority
        self._order = Order(
            id=self.id,
            wish=self.wish,
            errand=errand_of(request, self.id),
            arrived=asyncio.get_running_loop().time(),
            deadline_s=terms.deadline_s,
            # Other people's clients know nothing of retries: they are held.
            held=isinstance(request, EdgeRequest) or terms.deadline_s is not None,
        )
        self._seating = Seating(self._order, means)
        self._performing: asyncio.Task[None] | None = None
        self._cause: RbeeError | None = None

    def stop(self, cause: RbeeError) -> None:
        """End it early; its client is told *cause*."""
        self._cause = self._cause or cause
        if self._performing is not None:
            self._performing.cancel()

    async def perform(self, out: Recipient, request_id: str | None) -> None:
        """Do it, with every event given to *out*; cancel this to say that the client has left."""
        performing = self._performing = asyncio.current_task()
        assert performing is not None
        expiry = self._expires()
        try:
            if self._cause is not None:
                raise self._cause
            await out.tell(TaskAccepted(task_id=self.id))
            kind = (self.wish.model, self.wish.node, self.wish.backend, self.wish.device)
            with self._means.turns.waiting(kind, self.client, self._priority) as turn:
                async with _pings(out, turn):
                    seat = await self._seating.take(out, turn)
            metrics.QUEEN_WAIT.observe(asyncio.get_running_loop().time() - self._order.arrived)
            await self._relayed(seat, out)
            metrics.QUEEN_TASKS.add(1, "done")
        except RbeeError as error:
            log.warning("task failed", extra={"fields": {"task_id": self.id, "code": error.code.value}})
            metrics.QUEEN_TASKS.add(1, error.code.value)
            await out.fail(error, request_id)
        except asyncio.CancelledError:
            metrics.QUEEN_TASKS.add(1, (self._cause.code if self._cause else ErrorCode.CANCELED).value)
            log.info("task stopped", extra={"fields": {"task_id": self.id}})
            if self._cause is None:
                raise
            performing.uncancel()
            await out.fail(self._cause, request_id)
        except Exception:
            metrics.QUEEN_TASKS.add(1, ErrorCode.INTERNAL.value)
            log.exception("BUG: a task died")
            await out.fail(RbeeError(ErrorCode.INTERNAL, "Something went wrong inside the queen."), request_id)
        finally:
            if expiry is not None:
                expiry.cancel()
            self.ended.set()

    def _expires(self) -> asyncio.TimerHandle | None:
        """Have the task ended at its deadline, if it has one."""
        allowed = self._order.deadline_s
        if allowed is None:
            return None
        late = RbeeError(ErrorCode.REQUEST_TIMEOUT, f"The request was not done within its {allowed:g} s.")
        return asyncio.get_running_loop().call_at(self._order.arrived + allowed, self.stop, late)

    async def _relayed(self, seat: Seat, out: Recipient) -> None:
        """Pass the answer on; whatever happens, the worker's slot is free afterwards."""
        errand = self._order.errand
        worker, watch = seat.worker, StreamWatch(errand.dialect)
        placed = TaskPlaced(
            task_id=self.id,
            node=worker.node,
            worker_id=worker.worker_id,
            backend=worker.backend,
            device=worker.device,
            warm=seat.warm,
        )
        try:
            with seat.use:
                await out.tell(placed)
                if errand.stream:
                    await out.begin()
                    await relay(seat.upstream, out, watch, stall_s=self._means.no_token_timeout_s)
                else:
                    async with self._while_there(seat):
                        await relay_whole(seat.upstream, out, watch)
        except RbeeError as error:
            if error.code is ErrorCode.WORKER_CRASHED:
                raise await crash(self._means.fleet, worker, watch.tokens, error.message) from error
            error.details.update(where(worker))
            raise
        finally:
            self._means.pool.release(worker.url, seat.upstream)
            metrics.QUEEN_TOKENS.add(watch.tokens)
            if not watch.ended:
                await free_slot(self._means.pool, self._means.background, seat.link, self.id)
        log.info(
            "task done", extra={"fields": {"task_id": self.id, "worker_id": worker.worker_id, "tokens": watch.tokens}}
        )

    @contextlib.asynccontextmanager
    async def _while_there(self, seat: Seat) -> AsyncIterator[None]:
        """Give an answer up, which may be silent for long, when its worker is gone."""
        fleet, worker_id = self._means.fleet, seat.worker.worker_id

        async def watch() -> None:
            await fleet.until(lambda: fleet.registry.worker(worker_id) is None or None)
            seat.upstream.abandon(UpstreamBroken("its worker is gone"))

        watching = asyncio.create_task(watch(), name=f"worker of {self.id}")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


@contextlib.asynccontextmanager
async def _pings(out: Recipient, turn: Turn) -> AsyncIterator[None]:
    """Keep a silent stream alive while there is nothing to say but the place in the line.

    Most tasks are placed before there is anything to tell: for them there is a timer and no task.
    """

    async def ping() -> None:
        told = (0, 0)
        for count in itertools.count(1):
            now = (turn.place, turn.of)
            if turn.of > 1 and now != told:
                await out.comment(f"place {turn.place} of {turn.of} in line")
                told = now
            elif count % _PLACES_A_PING == 0:
                await out.comment("ping")
            await asyncio.sleep(PLACE_INTERVAL_S)

    pinging: list[asyncio.Task[None]] = []
    timer = asyncio.get_running_loop().call_later(
        PLACE_INTERVAL_S, lambda: pinging.append(asyncio.create_task(ping(), name="pings"))
    )
    try:
        yield
    finally:
        timer.cancel()
        for task in pinging:
            task.cancel()
        if pinging:
            await asyncio.gather(*pinging, return_exceptions=True)
