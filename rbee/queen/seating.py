"""Get a worker to take a request: find or start one, wait for a slot in turn, ask, and try again where that helps."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

from rbee.client.retry import BUSY_WORKER, HTTP_CONNECT
from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import WorkerAccess, WorkerInfo
from rbee.daemonkit.background import BackgroundTasks
from rbee.errors import RbeeError
from rbee.observe import metrics
from rbee.queen.asking import Asking, Order, Seat
from rbee.queen.broken_off import where
from rbee.queen.fleet_watch import FleetWatch
from rbee.queen.placement import AwaitWorker, SpawnWorker, UseWorker
from rbee.queen.readiness import Readiness
from rbee.queen.recipients import Recipient
from rbee.queen.refusals import Refusal
from rbee.queen.starts import Starts, short
from rbee.queen.story import narration
from rbee.queen.turns import Turn, Turns
from rbee.queen.undertaking import Undertaking
from rbee.queen.upstream_pool import UpstreamPool

_DECISIONS = {UseWorker: "warm", AwaitWorker: "loading", SpawnWorker: "spawn", Refusal: "refused"}
_TRY_LATER = (ErrorCode.ALL_SLOTS_BUSY, ErrorCode.WORKER_LOADING, ErrorCode.DRAINING)


@dataclass(frozen=True, slots=True)
class Means:
    """What tasks work with. Times in seconds."""

    fleet: FleetWatch
    readiness: Readiness
    starts: Starts
    pool: UpstreamPool
    background: BackgroundTasks
    turns: Turns
    no_token_timeout_s: float
    queue_timeout_s: float


@dataclass(slots=True)
class _Waits:
    """The waits that a task still has: for a busy worker, for one that is not reached, and for how long it is held."""

    busy: list[float]
    unreachable: list[float]
    held_until: float | None = None

    def hold(self, seconds: float) -> float:
        """Give the seconds for which the task is still held, *seconds* from the first time on."""
        now = asyncio.get_running_loop().time()
        if self.held_until is None:
            self.held_until = now + seconds
        return self.held_until - now


class Seating:
    """The way of one request to a worker."""

    def __init__(self, order: Order, means: Means) -> None:
        self._order = order
        self._means = means
        self._asking = Asking(order, means.fleet, means.pool, means.background)

    async def take(self, out: Recipient, turn: Turn) -> Seat:
        """Find or start a worker and get it to take the request: when it is its turn, and with the retries due."""
        waits = _Waits(list(BUSY_WORKER.waits()), list(HTTP_CONNECT.waits()))
        warm = True
        while True:
            decision = await self._decision(out)
            if not isinstance(decision, UseWorker):
                link, warm = await self._started(decision, out), False
                if not turn.is_first:
                    await out.tell(narration("queen-rbee", "queue", f"place {turn.place} of {turn.of} in line", "🎫"))
            else:
                link = decision.link
            worker = link.worker
            if not _comes_in(turn, decision):
                await self._slot(out, turn, waits, worker, None, patient=not warm)
                continue
            if isinstance(decision, UseWorker):
                await out.tell(narration("queen-rbee", "reuse", _reusing(decision), "🔥"))
            try:
                seat = await self._asking.ask(link, warm=warm)
            except (OSError, TimeoutError) as error:
                reason = f"worker {worker.worker_id} at {worker.url} does not answer"
                if not waits.unreachable:
                    raise RbeeError(
                        ErrorCode.CONNECTION_TIMEOUT,
                        f"{reason[0].upper()}{reason[1:]}, after {len(HTTP_CONNECT.delays_s) + 1} attempts.",
                        details=where(worker),
                    ) from error
                await asyncio.sleep(await _said(out, reason, waits.unreachable, len(HTTP_CONNECT.delays_s)))
                continue
            if seat.upstream.status == 200:
                self._means.fleet.reads(worker, self._order.wish)
                return seat
            refusal = await self._asking.refusal(seat)
            if refusal.code not in _TRY_LATER:
                raise refusal
            await self._slot(out, turn, waits, worker, refusal, patient=not warm)

    async def _decision(self, out: Recipient) -> UseWorker | AwaitWorker | SpawnWorker:
        """Choose a place. Raises RbeeError where there is none."""
        if not self._means.readiness.ready(self._order.wish):
            async for event in self._means.readiness.events(self._order.wish):
                await out.tell(event)
        decision = self._means.fleet.place(self._order.wish)
        metrics.QUEEN_PLACEMENTS.add(1, _DECISIONS[type(decision)])
        if isinstance(decision, Refusal):
            raise decision.error()
        return decision

    async def _started(self, decision: AwaitWorker | SpawnWorker, out: Recipient) -> WorkerAccess:
        """Bring the worker up, together with everybody who waits for the same one."""
        if isinstance(decision, AwaitWorker):
            return await _followed(self._means.starts.joined(decision), out)
        node, backend = decision.node, decision.backend
        which = "" if self._order.wish.backend is not None else ", the best it has"
        human = f"no worker runs {short(self._order.wish.model)}: starting one on {node} ({backend.value}{which})"
        await out.tell(narration("queen-rbee", "place", human, "🧭"))
        return await _followed(self._means.starts.for_wish(self._order.wish, decision), out)

    async def _slot(
        self,
        out: Recipient,
        turn: Turn,
        waits: _Waits,
        worker: WorkerInfo,
        refusal: RbeeError | None,
        *,
        patient: bool,
    ) -> None:
        """Wait until it is this task's turn and a slot is free, or until it is time to look again.

        A patient task, which waited for a cold start, and one that says so are held for `queue_timeout_s`; any other
        one is given up after the retries of a busy worker. Raises RbeeError ALL_SLOTS_BUSY.
        """
        slots = _slots(worker, refusal)
        why = _why_later(refusal, slots)
        # Where the worker says no although a slot seemed free, somebody else uses it, and no news will come.
        news = refusal is None or not self._slot_is_free()
        held = patient or self._order.held
        if held:
            left = waits.hold(self._means.queue_timeout_s)
            wait = left if news else min(left, BUSY_WORKER.delays_s[0])
            given_up = left <= 0
        else:
            given_up = not waits.busy
            reason = f"worker {worker.worker_id}: {why}"
            wait = 0.0 if given_up else await _said(out, reason, waits.busy, len(BUSY_WORKER.delays_s))
        if given_up:
            attempts = (
                f"within {self._means.queue_timeout_s:g} s"
                if held
                else (f"in {len(BUSY_WORKER.delays_s) + 1} attempts")
            )
            raise RbeeError(
                ErrorCode.ALL_SLOTS_BUSY,
                f"Worker {worker.worker_id} on {worker.node} took no request {attempts}: {why}.",
                details={**slots, **where(worker)},
                hint=f"Wait, or start another worker: rbee-keeper worker start --node {worker.node} "
                f"--model {worker.model_ref}",
            ) from refusal
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                if not news:
                    await asyncio.sleep(wait)
                await turn.wait()
                await self._means.fleet.until(lambda: self._slot_is_free() or None)

    def _slot_is_free(self) -> bool:
        """Tell whether it is worth trying again: a slot seems free, or there is something else to do than to wait."""
        decision = self._means.fleet.place(self._order.wish)
        return not isinstance(decision, UseWorker) or decision.free > 0


async def _followed(start: Undertaking[WorkerAccess], out: Recipient) -> WorkerAccess:
    async for event in start.events():
        await out.tell(event)
    return await start.result()


async def _said(out: Recipient, reason: str, waits: list[float], of: int) -> float:
    """Say why and for how long the task waits now; give the seconds."""
    wait = waits.pop(0)
    human = f"{reason}; trying again in {wait:.1f} s (retry {of - len(waits)} of {of})"
    await out.tell(narration("queen-rbee", "retry", human, "🔁"))
    return wait


def _comes_in(turn: Turn, decision: UseWorker | AwaitWorker | SpawnWorker) -> bool:
    """Tell whether a task may ask: it is first, or there is a free slot for each that is ahead of it too.

    Who asks is not out of line yet but has its slot counted already, so at most as many ask as there are slots.
    """
    return turn.is_first or (isinstance(decision, UseWorker) and turn.place <= decision.free)


def _reusing(use: UseWorker) -> str:
    worker = use.link.worker
    state = "warm: reusing it" if use.free else "busy: trying it"
    return f"worker {worker.worker_id} on {worker.node} is {state}"


def _slots(worker: WorkerInfo, refusal: RbeeError | None) -> dict[str, Any]:
    """Give the slots as the worker counts them, else as its hive did."""
    details = {} if refusal is None else refusal.details
    total = details.get("slots_total", worker.slots_total)
    return {"slots_total": total, "slots_busy": details.get("slots_busy", total)}


def _why_later(refusal: RbeeError | None, slots: dict[str, Any]) -> str:
    if refusal is None or refusal.code is ErrorCode.ALL_SLOTS_BUSY:
        return f"all slots are busy ({slots['slots_busy']} of {slots['slots_total']})"
    return refusal.message.rstrip(".")
