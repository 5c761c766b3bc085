"""Get a worker to accept a request: find or start one, wait for a slot in turn, send, and retry where that helps."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass

from rbee.client.retry import BUSY_WORKER, HTTP_CONNECT
from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import DEADLINE_HEADER
from rbee.contracts.references import short_reference
from rbee.contracts.workers import WorkerAccess, WorkerInfo
from rbee.daemonkit.background import BackgroundTasks
from rbee.errors import RbeeError
from rbee.observe import metrics
from rbee.queen.fleet.readiness import Readiness
from rbee.queen.fleet.state import FleetState
from rbee.queen.fleet.worker_start import OUT_OF_MEMORY, WorkerStarter
from rbee.queen.progress import SharedJob, narration
from rbee.queen.relay.connection import UpstreamConnection, UpstreamError, UpstreamLost, UpstreamTimeout
from rbee.queen.relay.failures import cancel_on_worker, crash_error, lost_error, worker_details
from rbee.queen.relay.pool import UpstreamPool
from rbee.queen.relay.response_sink import ResponseSink
from rbee.queen.scheduling.admission_queue import AdmissionQueue, QueueEntry, SlotKind
from rbee.queen.scheduling.placement import AwaitRoom, AwaitWorker, SpawnWorker, UseWorker
from rbee.queen.scheduling.rejections import Refusal, in_the_way, no_node
from rbee.queen.scheduling.request import PlacementRequest
from rbee.queen.tasks.device_wait import must_wait, wait_for_device, waits_for_device
from rbee.queen.tasks.queue_comments import queue_comments
from rbee.queen.tasks.retries import ROOM_LACKS, RetryBudget, announce_retry, retry_reason, slot_details
from rbee.queen.tasks.upstream_request import UpstreamRequest

ERROR_BODY_BYTES = 64 * 1024
_DECISIONS = {
    UseWorker: "warm",
    AwaitWorker: "loading",
    SpawnWorker: "spawn",
    AwaitRoom: "room",
    Refusal: "refused",
}
_RETRYABLE = (ErrorCode.ALL_SLOTS_BUSY, ErrorCode.WORKER_LOADING, ErrorCode.DRAINING)

Placed = UseWorker | AwaitWorker | SpawnWorker | AwaitRoom


@dataclass(frozen=True, slots=True)
class QueuedRequest:
    """A request on its way to a worker: where it may run, what the worker is sent, and by when it must be done.

    `arrived` is a time of the event loop, `deadline_s` the seconds from then on. One that is `held` waits for a slot
    even where no worker is started for it. `alternatives` are the models that may be tried in its place: it does not
    wait for memory while a worker of one of them is free, nor for a yielded device while one of them has a place.
    """

    id: str
    client: str
    priority: int
    placement: PlacementRequest
    upstream_request: UpstreamRequest
    arrived: float
    deadline_s: float | None
    held: bool
    alternatives: tuple[PlacementRequest, ...] = ()

    @property
    def kind(self) -> SlotKind:
        """Return the kind of slot that it waits for."""
        return SlotKind(self.placement.name, self.placement.node, self.placement.backend, self.placement.device)


@dataclass(frozen=True, slots=True)
class Assignment:
    """A worker that was sent the request, the connection on which it answers, and the queen's count of its use."""

    link: WorkerAccess
    upstream: UpstreamConnection
    warm: bool
    use: contextlib.ExitStack

    @property
    def worker(self) -> WorkerInfo:
        """Return the worker."""
        return self.link.worker


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One request while it looks for a worker, with its client, its place in the queue and its retries."""

    request: QueuedRequest
    sink: ResponseSink
    entry: QueueEntry
    budget: RetryBudget


class Scheduler:
    """Assign workers to requests.

    Args:
        queue_timeout_s: how long a request that is held waits for a slot.
    """

    def __init__(
        self,
        fleet: FleetState,
        readiness: Readiness,
        starter: WorkerStarter,
        pool: UpstreamPool,
        background: BackgroundTasks,
        *,
        queue_timeout_s: float,
    ) -> None:
        self.queue = AdmissionQueue()
        self.waiting: dict[str, QueueEntry] = {}
        """The places of the requests that look for a worker, by their ids."""
        fleet.occupancy.is_wanted = self.queue.wants
        self._fleet = fleet
        self._readiness = readiness
        self._starter = starter
        self._pool = pool
        self._background = background
        self._queue_timeout_s = queue_timeout_s

    def check(self, placement: PlacementRequest) -> Placed | None:
        """Return where a request runs, or None where hives must be waited for first. Raises RbeeError for nowhere."""
        if not self._readiness.is_settled(placement):
            return None
        decision = self._fleet.place(placement)
        if isinstance(decision, Refusal):
            raise decision.error()
        return decision if self._readiness.is_ready(placement) else None

    def check_node(self, node: str | None) -> None:
        """Raise RbeeError NODE_NOT_FOUND if *node* is named and unknown."""
        if node is not None and self._fleet.registry.hive(node) is None:
            raise no_node(node).error()

    async def acquire(self, request: QueuedRequest, sink: ResponseSink, decision: Placed | None) -> Assignment:
        """Find or start a worker and get it to accept *request*, in its turn and with the retries due.

        *decision* is what `check` returned, if it is still fresh.
        """
        with self.queue.waiting(request.kind, request.client, request.priority) as entry:
            self.waiting[request.id] = entry
            try:
                async with queue_comments(sink, entry):
                    budget = RetryBudget(list(BUSY_WORKER.waits()), list(HTTP_CONNECT.waits()))
                    return await self._acquire(_Attempt(request, sink, entry, budget), decision)
            finally:
                del self.waiting[request.id]

    async def _acquire(self, attempt: _Attempt, decision: Placed | None) -> Assignment:
        request, sink, entry, budget = attempt.request, attempt.sink, attempt.entry, attempt.budget
        warm = True
        while True:
            decision = await self._place(attempt, decision)
            if isinstance(decision, AwaitRoom):
                await self._wait_for_room(attempt, decision)
                decision, warm = None, False
                continue
            if not isinstance(decision, UseWorker):
                warm = False
                started = await self._start_or_look_again(attempt, decision)
                if started is None:
                    decision = None
                    continue
                link = started
                if not entry.is_first:
                    human = f"position {entry.position} of {entry.length} in the queue"
                    await sink.emit(narration("queen-rbee", "queue", human, "🎫"))
            else:
                link = decision.link
            worker = link.worker
            if not entry.may_go(decision.free if isinstance(decision, UseWorker) else 0):
                decision = None
                await self._wait_for_slot(attempt, worker, None, patient=not warm)
                continue
            if isinstance(decision, UseWorker):
                await sink.emit(narration("queen-rbee", "reuse", _describe_reuse(decision), "🔥"))
            decision = None
            try:
                assignment = await self._send(request, link, warm=warm)
            except (OSError, TimeoutError) as error:
                reason = f"worker {worker.worker_id} at {worker.url} does not answer"
                if not budget.unreachable:
                    raise RbeeError(
                        ErrorCode.CONNECTION_TIMEOUT,
                        f"{reason[0].upper()}{reason[1:]}, after {len(HTTP_CONNECT.delays_s) + 1} attempts.",
                        details=worker_details(worker),
                    ) from error
                await asyncio.sleep(await announce_retry(sink, reason, budget.unreachable, len(HTTP_CONNECT.delays_s)))
                continue
            if assignment.upstream.status == 200:
                self._fleet.record_prompt(worker, request.placement)
                return assignment
            refusal = await self._read_refusal(assignment)
            if refusal.code not in _RETRYABLE:
                raise refusal
            await self._wait_for_slot(attempt, worker, refusal, patient=not warm)

    async def _place(self, attempt: _Attempt, decision: Placed | None) -> Placed:
        """Choose a place, unless *decision* is it already. Raises RbeeError where there is none."""
        request, sink = attempt.request, attempt.sink
        if decision is None:
            if not self._readiness.is_ready(request.placement):
                async for event in self._readiness.events(request.placement):
                    await sink.emit(event)
            placed = self._fleet.place(request.placement)
            others = request.alternatives
            if request.held and isinstance(placed, Refusal) and must_wait(self._fleet, placed, others):
                await sink.emit(narration("queen-rbee", "yielded", f"{placed.message} The request waits.", "⏳"))
                left = attempt.budget.hold(self._queue_timeout_s)
                placed = await wait_for_device(self._fleet, request.placement, others, left)
        else:
            placed = decision
        metrics.QUEEN_PLACEMENTS.add(1, _DECISIONS[type(placed)])
        if isinstance(placed, Refusal):
            raise placed.error()
        return placed

    async def _wait_for_room(self, attempt: _Attempt, decision: AwaitRoom) -> None:
        """Wait until there is room for a worker, or something else is to be done. Raises RbeeError where none comes."""
        request, site = attempt.request, decision.site
        left = attempt.budget.hold(self._queue_timeout_s)
        if left <= 0 or self._has_free_alternative(request):
            raise decision.refusal.error()
        human = f"{short_reference(request.placement.name)} waits for memory on {site.node}: {in_the_way(site.room)}"
        await attempt.sink.emit(narration("queen-rbee", "room", human, "⏳"))
        with self._fleet.awaiting_room(request.id, request.placement), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._fleet.wait_for(
                    lambda: (
                        self._has_free_alternative(request)
                        or not isinstance(self._fleet.place(request.placement), AwaitRoom)
                        or None
                    )
                )

    def _has_free_alternative(self, request: QueuedRequest) -> bool:
        """Return whether a worker of another model, which may be tried instead, has a free slot."""
        decisions = map(self._fleet.place, request.alternatives)
        return any(isinstance(decision, UseWorker) and decision.free > 0 for decision in decisions)

    async def _start_or_look_again(self, attempt: _Attempt, decision: AwaitWorker | SpawnWorker) -> WorkerAccess | None:
        """Start the worker; None where that lacks memory or a device unexpectedly, and another try may not."""
        request = attempt.request
        before = self._fleet.as_declared(request.placement)
        try:
            return await self._start_worker(request, decision, attempt.sink)
        except RbeeError as error:
            redeclared = self._fleet.as_declared(request.placement) != before
            if not attempt.budget.starts or not (redeclared or error.code in ROOM_LACKS):
                raise
            attempt.budget.starts -= 1
            again = self._fleet.place(request.placement)
            if isinstance(again, Refusal) and not (request.held and waits_for_device(again)):
                if redeclared:
                    raise again.error() from error
                raise
            if again == decision and error.code in OUT_OF_MEMORY:
                raise
            return None

    async def _start_worker(
        self, request: QueuedRequest, decision: AwaitWorker | SpawnWorker, sink: ResponseSink
    ) -> WorkerAccess:
        """Start the worker, or wait for it, together with every other request that waits for the same one."""
        placement = request.placement
        if isinstance(decision, AwaitWorker):
            return await _follow(self._starter.wait_for_loading(decision), sink)
        node, backend = decision.node, decision.backend
        which = "" if placement.backend is not None else ", the best available backend"
        human = f"no worker serves {short_reference(placement.name)}: starting one on {node} ({backend.value}{which})"
        await sink.emit(narration("queen-rbee", "place", human, "🧭"))
        return await _follow(self._starter.start_for(placement, decision), sink)

    async def _send(self, request: QueuedRequest, link: WorkerAccess, *, warm: bool) -> Assignment:
        """Send the request to the worker and wait for the head of its answer, whatever its status is.

        Raises:
            OSError, TimeoutError: the worker cannot be reached.
            RbeeError: WORKER_STALLED, WORKER_CRASHED, CONNECTION_TIMEOUT.
        """
        worker, upstream_request = link.worker, request.upstream_request
        headers = dict(upstream_request.headers)
        if request.deadline_s is not None:
            left = request.arrived + request.deadline_s - asyncio.get_running_loop().time()
            headers[DEADLINE_HEADER] = f"{max(0.001, left):.3f}"
        with contextlib.ExitStack() as use:
            use.enter_context(self._fleet.track_in_flight(worker.worker_id))
            try:
                upstream = await self._pool.send(
                    "POST",
                    worker.url,
                    upstream_request.path,
                    key=link.api_key,
                    node=worker.node,
                    request_id=request.id,
                    body=upstream_request.body,
                    headers=headers,
                )
            except UpstreamLost as error:
                raise lost_error(worker, str(error)) from error
            except UpstreamTimeout as error:
                await cancel_on_worker(self._pool, self._background, link, request.id)
                raise RbeeError(
                    ErrorCode.WORKER_STALLED,
                    f"Worker {worker.worker_id} on {worker.node} received the request, but {error}.",
                    details=worker_details(worker),
                ) from error
            except UpstreamError as error:
                raise await crash_error(self._fleet, worker, 0, str(error)) from error
            return Assignment(link, upstream, warm, use.pop_all())

    async def _read_refusal(self, assignment: Assignment) -> RbeeError:
        """Read why the worker did not accept the request, and release the worker."""
        worker, upstream = assignment.worker, assignment.upstream
        try:
            body = await upstream.read_all(ERROR_BODY_BYTES)
        except UpstreamError as error:
            return await crash_error(self._fleet, worker, 0, str(error))
        finally:
            self._pool.release(worker.url, upstream)
            assignment.use.close()
        with contextlib.suppress(ValueError):
            refusal = RbeeError.from_body(json.loads(body))
            if refusal is not None:
                return refusal
        return RbeeError(
            ErrorCode.INVALID_RESPONSE,
            f"{worker.url} answered HTTP {upstream.status}, but not as a worker does.",
            details={**worker_details(worker), "status": upstream.status},
        )

    async def _wait_for_slot(
        self, attempt: _Attempt, worker: WorkerInfo, refusal: RbeeError | None, *, patient: bool
    ) -> None:
        """Wait until it is this request's turn and a slot is free, or until it is time to look again.

        A patient request, which waited for a cold start, and one that is held wait for `queue_timeout_s`; any other
        one fails after the retries for a busy worker. Raises RbeeError ALL_SLOTS_BUSY.
        """
        request, budget = attempt.request, attempt.budget
        slots = slot_details(worker, refusal)
        why = retry_reason(refusal, slots)
        # Where the worker refuses although a slot seemed free, somebody else uses it, and no change will be reported.
        change_expected = refusal is None or not self._slot_is_free(request)
        held = patient or request.held
        if held:
            left = budget.hold(self._queue_timeout_s)
            wait = left if change_expected else min(left, BUSY_WORKER.delays_s[0])
            exhausted = left <= 0
        else:
            exhausted = not budget.busy
            reason = f"worker {worker.worker_id}: {why}"
            retries = len(BUSY_WORKER.delays_s)
            wait = 0.0 if exhausted else await announce_retry(attempt.sink, reason, budget.busy, retries)
        if exhausted:
            attempts = f"within {self._queue_timeout_s:g} s" if held else f"in {len(BUSY_WORKER.delays_s) + 1} attempts"
            raise RbeeError(
                ErrorCode.ALL_SLOTS_BUSY,
                f"Worker {worker.worker_id} on {worker.node} did not accept the request {attempts}: {why}.",
                details={**slots, **worker_details(worker)},
                hint=f"Try again later, or start another worker: rbee-keeper worker start --node {worker.node} "
                f"--model {worker.model_ref}",
            ) from refusal
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                if not change_expected:
                    await asyncio.sleep(wait)
                await _wait_until_first(attempt.entry)
                await self._fleet.wait_for(lambda: self._slot_is_free(request) or None)

    def _slot_is_free(self, request: QueuedRequest) -> bool:
        """Return whether a retry may help: a slot seems free, or something other than waiting is to be done."""
        decision = self._fleet.place(request.placement)
        return not isinstance(decision, UseWorker) or decision.free > 0


async def _wait_until_first(entry: QueueEntry) -> None:
    """Wait until nobody is ahead; a more urgent request may come between even then."""
    first = asyncio.Event()
    entry.on_first = first.set
    if not entry.is_first:
        await first.wait()


async def _follow(job: SharedJob[WorkerAccess], sink: ResponseSink) -> WorkerAccess:
    async with contextlib.aclosing(job.events()) as events:
        async for event in events:
            await sink.emit(event)
    return await job.result()


def _describe_reuse(use: UseWorker) -> str:
    worker = use.link.worker
    state = "warm: reusing it" if use.free else "busy: trying it"
    return f"worker {worker.worker_id} on {worker.node} is {state}"
