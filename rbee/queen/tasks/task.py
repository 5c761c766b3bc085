"""Run a task: get a worker assigned, relay its answer, and free its slot, however the task ends.

`Task.cancel` is the one way to end a task early, whether its client left, somebody deleted it, its deadline passed, its
worker is gone, or the queen stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import new_id
from rbee.contracts.tasks import Fallback, TaskAccepted, TaskPlaced, TaskRequest
from rbee.contracts.workers import WorkerInfo
from rbee.daemonkit.background import BackgroundTasks
from rbee.daemonkit.errors import internal_error
from rbee.daemonkit.http1 import ClientConnection, connection_of
from rbee.errors import RbeeError
from rbee.observe import metrics
from rbee.queen.client_ids import ClientIds
from rbee.queen.fleet.state import FleetState
from rbee.queen.keys.access import Client, check_priority
from rbee.queen.relay.failures import cancel_on_worker, crash_error, worker_details
from rbee.queen.relay.pool import UpstreamPool
from rbee.queen.relay.response_sink import ResponseSink
from rbee.queen.relay.stream import StallGuard, StreamObserver, relay, relay_whole
from rbee.queen.scheduling.request import PlacementRequest
from rbee.queen.tasks.activity import Activity
from rbee.queen.tasks.client_sink import ClientSink
from rbee.queen.tasks.fallback import Fallbacks
from rbee.queen.tasks.scheduler import Assignment, Placed, QueuedRequest, Scheduler
from rbee.queen.tasks.sinks import TaskEventSink
from rbee.queen.tasks.upstream_request import CompatRequest, build_upstream_request, placement_request
from rbee.queen.usage.ledger import Usage
from rbee.queen.usage.store import UsageStore

if TYPE_CHECKING:
    from rbee.contracts.served import ServedModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class QueenServices:
    """What tasks work with. Times in seconds, *now* since the epoch."""

    scheduler: Scheduler
    fleet: FleetState
    pool: UpstreamPool
    background: BackgroundTasks
    client_ids: ClientIds
    no_token_timeout_s: float
    usage: UsageStore
    now: Callable[[], float]


class Task:
    """One inference, from its admission to its last byte.

    Raises RbeeError: FORBIDDEN for a priority that the client may not have, or why no node can run it as the fleet is
    now, where that can be said at once.
    """

    def __init__(
        self,
        request: TaskRequest | CompatRequest,
        services: QueenServices,
        client: Client,
        *,
        model: str,
        may_fetch: bool,
        served: ServedModel | None,
        fallbacks: Fallbacks | None = None,
    ) -> None:
        self.id = new_id("task")
        self.client = client
        self.ended = asyncio.Event()
        self._services = services
        self._model = model  # as its client named it, or that of a fallback
        compat = isinstance(request, CompatRequest)
        options = request.options if isinstance(request, CompatRequest) else request
        self._client_id = services.client_ids.id(client.name)
        placement = placement_request(request, self._client_id, may_fetch=may_fetch, served=served)
        priority = check_priority(client, options.priority if "priority" in options.model_fields_set else None)
        services.scheduler.check_node(placement.node)
        self._fallbacks = fallbacks
        self._untold: list[Fallback] = []
        self._request = QueuedRequest(
            id=self.id,
            client=client.name,
            priority=priority,
            placement=placement,
            upstream_request=build_upstream_request(request, self.id, self._client_id),
            arrived=asyncio.get_running_loop().time(),
            deadline_s=options.deadline_s,
            # Clients of the compatible interfaces do not expect to retry: they are held.
            held=compat or options.deadline_s is not None,
            alternatives=self._alternatives(placement),
        )
        self.activity = Activity(self.id, client.name, placement.name, priority, self._request.arrived, services.now())
        # A client of a compatible interface gets its status when it is placed: nothing is sent to it before.
        self._decision = None if compat else self._check()
        self._running: asyncio.Task[None] | None = None
        self._worker: WorkerInfo | None = None
        self._guard: StallGuard | None = None
        self._canceled = False
        self._cause: RbeeError | None = None

    @property
    def waiting(self) -> bool:
        """Return whether it has no worker yet, and has not been canceled."""
        return self._worker is None and not self._canceled

    @property
    def priority(self) -> int:
        """Return its priority among the tasks that wait."""
        return self._request.priority

    def hive_lost(self, node: str, reason: str | None) -> None:
        """Note that the hive of *node* is lost, or with None is back: a stream from there may be cut with it."""
        if self._guard is not None and self._worker is not None and self._worker.node == node:
            self._guard.hive_lost(reason)

    def cancel(self, cause: RbeeError | None) -> None:
        """End the task early; the first cause counts. The client is sent *cause*; None means that it has left."""
        if self._canceled:
            return
        self._canceled, self._cause = True, cause
        if self._running is not None:
            self._running.cancel()

    async def answer(self, sink: ResponseSink, connection: ClientConnection, request_id: str) -> bool:
        """Run the task until it has ended or its client has left; return whether the client is still there."""
        running = self._running = asyncio.current_task()
        assert running is not None
        connection.on_disconnect(lambda: self.cancel(None))
        try:
            await self._run(sink if self.client.operates else ClientSink(sink), request_id)
        except asyncio.CancelledError:
            if not self._canceled:
                raise
            running.uncancel()
        finally:
            connection.on_disconnect(None)
            self.ended.set()
        return not self._canceled or self._cause is not None

    async def _run(self, sink: ResponseSink, request_id: str) -> None:
        deadline = self._start_deadline()
        client = self.client.name
        fields = {"task_id": self.id, "client": client}
        log.debug("task accepted", extra={"fields": {**fields, "model": self._request.placement.model}})
        try:
            if self._canceled:
                raise asyncio.CancelledError
            await sink.emit(TaskAccepted(task_id=self.id))
            assignment = await self._acquire(sink)
            self._worker = assignment.worker
            self.activity.placed(assignment.worker, self._request.placement.name, asyncio.get_running_loop().time())
            metrics.QUEEN_WAIT.observe(asyncio.get_running_loop().time() - self._request.arrived)
            await self._relay(assignment, sink)
            metrics.QUEEN_TASKS.add(1, "done", client)
        except RbeeError as error:
            log.warning("task failed", extra={"fields": {**fields, "code": error.code.value, "reason": error.message}})
            metrics.QUEEN_TASKS.add(1, error.code.value, client)
            self.activity.error = error.code
            await self._fail(sink, error, request_id)
        except asyncio.CancelledError:
            self.activity.error = self._cause.code if self._cause else ErrorCode.CANCELED
            metrics.QUEEN_TASKS.add(1, self.activity.error.value, client)
            log.info("task canceled", extra={"fields": fields})
            if self._cause is None:
                raise
            assert self._running is not None
            self._running.uncancel()
            await self._fail(sink, self._cause, request_id)
        except Exception:
            self.activity.error = ErrorCode.INTERNAL
            metrics.QUEEN_TASKS.add(1, ErrorCode.INTERNAL.value, client)
            log.exception("BUG: a task failed", extra={"fields": fields})
            await self._fail(sink, internal_error(), request_id)
        finally:
            self.activity.ended_at = asyncio.get_running_loop().time()
            if deadline is not None:
                deadline.cancel()

    async def _fail(self, sink: ResponseSink, error: RbeeError, request_id: str) -> None:
        """Tell the client why there is no answer, unless it has been told how the answer ended.

        Queen and worker both watch a deadline, and the worker may be the first by a moment. The error that came in
        place of a whole answer is not passed on: it is *error* then.
        """
        observer, stream = self.activity.observer, self._request.upstream_request.stream
        if observer is None or not (observer.done or (observer.failed and stream)):
            await sink.fail(error, request_id)

    def _check(self) -> Placed | None:
        """Return where the request runs, as `Scheduler.check` does, if need be with another model."""
        while True:
            try:
                return self._services.scheduler.check(self._request.placement)
            except RbeeError as error:
                self._turn_to_next(error)

    async def _acquire(self, sink: ResponseSink) -> Assignment:
        """Get a worker to accept the request, if need be one of another model, of which the client is told."""
        decision = self._decision
        while True:
            for event in self._untold:
                await sink.emit(event)
            self._untold.clear()
            try:
                return await self._services.scheduler.acquire(self._request, sink, decision)
            except RbeeError as error:
                self._turn_to_next(error)
                decision = None

    def _turn_to_next(self, error: RbeeError) -> None:
        """Turn to the next model that may take the place of the one that failed. Raises RbeeError if there is none."""
        if self._fallbacks is None:
            raise error
        alternative, request, told = self._fallbacks.after(error)
        placement = placement_request(request, self._client_id, served=alternative.model)
        self._request = replace(
            self._request,
            placement=placement,
            upstream_request=build_upstream_request(request, self.id, self._client_id),
            alternatives=self._alternatives(placement),
        )
        self._untold.append(told)
        self._model = alternative.name
        metrics.QUEEN_FALLBACKS.add(1, alternative.name)
        fields = {"task_id": self.id, "client": self.client.name, "model": alternative.name, "reason": error.message}
        log.warning("task falls back", extra={"fields": fields})

    def _alternatives(self, placement: PlacementRequest) -> tuple[PlacementRequest, ...]:
        """Return what placement would be asked for the models that are left to try."""
        return tuple(
            replace(placement, model=each.model.model, served=each.model, prefix_hashes=(), may_fetch=True)
            for each in (self._fallbacks.left if self._fallbacks is not None else ())
        )

    def _start_deadline(self) -> asyncio.TimerHandle | None:
        """Have the task canceled at its deadline, if it has one."""
        allowed = self._request.deadline_s
        if allowed is None:
            return None
        return asyncio.get_running_loop().call_at(self._request.arrived + allowed, self._expire, allowed)

    def _expire(self, allowed: float) -> None:
        worker = self._worker
        if worker is None:
            state, hint = "waiting for a worker", "See which workers are loading or busy: rbee-keeper worker list"
        else:
            state = f"running on worker {worker.worker_id} on {worker.node}"
            hint = f"See its log: rbee-keeper logs --node {worker.node}"
        message = f"The request exceeded its deadline of {allowed:g} s; it was {state}."
        self.cancel(RbeeError(ErrorCode.REQUEST_TIMEOUT, message, details={"state": state}, hint=hint))

    async def _relay(self, assignment: Assignment, sink: ResponseSink) -> None:
        """Relay the answer; whatever happens, the worker's slot is free afterwards."""
        services, upstream_request = self._services, self._request.upstream_request
        worker, observer = assignment.worker, StreamObserver(upstream_request.dialect)
        self.activity.observer = observer
        placed = TaskPlaced(
            task_id=self.id,
            node=worker.node,
            worker_id=worker.worker_id,
            backend=worker.backend,
            device=worker.device,
            warm=assignment.warm,
        )
        try:
            device = (worker.node, worker.backend, worker.device)
            with assignment.use, services.usage.running(self.client.name, self._model, device):
                await sink.emit(placed)
                if upstream_request.stream:
                    await sink.start(assignment.upstream.ignored)
                    self._guard = StallGuard(assignment.upstream, services.no_token_timeout_s)
                    await relay(assignment.upstream, sink, observer, self._guard)
                else:
                    async with self._cancel_if_worker_gone(assignment):
                        await relay_whole(assignment.upstream, sink, observer)
        except RbeeError as error:
            if error.code is ErrorCode.WORKER_CRASHED:
                raise await crash_error(services.fleet, worker, observer.tokens, error.message) from error
            error.details.update(worker_details(worker))
            raise
        finally:
            self._guard = None
            usage = self.activity.usage = await self._close(assignment, observer)
            services.usage.record(self.client.name, self._model, usage)
        if self.client.operates and observer.done:
            services.fleet.forgive(worker, self._client_id)
        log.info(
            "task done",
            extra={
                "fields": {
                    "task_id": self.id,
                    "client": self.client.name,
                    "worker_id": worker.worker_id,
                    "tokens": usage.answer_tokens,
                    "prompt_tokens": usage.prompt_tokens,
                }
            },
        )

    async def _close(self, assignment: Assignment, observer: StreamObserver) -> Usage:
        """Give the connection back, after the request was canceled if it still runs; return what it used.

        A worker says what a request used that it is told to cancel, but not once its connection was cut.
        """
        services, counted = self._services, None
        try:
            if not observer.ended:
                lost = not services.fleet.connected(assignment.worker.node)
                counted = await cancel_on_worker(
                    services.pool, services.background, assignment.link, self.id, lost=lost
                )
        finally:
            services.pool.release(assignment.worker.url, assignment.upstream)
        return counted or observer.usage

    @contextlib.asynccontextmanager
    async def _cancel_if_worker_gone(self, assignment: Assignment) -> AsyncIterator[None]:
        """Cancel the task, which may be silent for long without a stream, when its worker is gone."""
        fleet, worker = self._services.fleet, assignment.worker

        async def watch() -> None:
            await fleet.wait_for(lambda: fleet.registry.worker(worker.worker_id) is None or None, worker.worker_id)
            self.cancel(await crash_error(fleet, worker, 0, "its worker is gone"))

        watching = asyncio.create_task(watch(), name=f"worker of {self.id}")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


class TaskStream(Response):
    """A task as a stream of events. *admission* admits it; what it raises is answered as a plain error."""

    media_type = "text/event-stream"

    def __init__(self, admission: contextlib.AbstractContextManager[Task]) -> None:
        super().__init__()
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer until the task has ended or its client has left."""
        del receive
        connection = connection_of(scope)
        await answer(self._admission, TaskEventSink(send, connection), connection, scope["state"]["request_id"])


async def answer(
    admission: contextlib.AbstractContextManager[Task],
    sink: ResponseSink,
    connection: ClientConnection,
    request_id: str,
) -> None:
    """Admit a task and have *sink* sent what becomes of it, until it has ended or its client has left."""
    with admission as task:
        client_is_there = await task.answer(sink, connection, request_id)
    if client_is_there:
        with contextlib.suppress(OSError):
            await sink.end()
