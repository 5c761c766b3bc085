"""Tasks: what each of them goes through, from the wish to the last token."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any

from rbee.client.retry import BUSY_WORKER, HTTP_CONNECT
from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import new_id
from rbee.contracts.tasks import TaskAccepted, TaskPlaced, TaskRequest
from rbee.contracts.workers import WorkerInfo, WorkerLink
from rbee.daemonkit.sse import PING, PING_INTERVAL_S, encode
from rbee.daemonkit.tasks import Background
from rbee.errors import RbeeError
from rbee.observe import metrics
from rbee.queen.errand import EdgeRequest, errand_of
from rbee.queen.fleet_watch import FleetWatch
from rbee.queen.placement import AwaitWorker, Refusal, SpawnWorker, UseWorker, Wish
from rbee.queen.readiness import Readiness
from rbee.queen.recipients import Recipient
from rbee.queen.relay import StreamWatch, relay, relay_whole
from rbee.queen.starts import Starts, short
from rbee.queen.story import narration
from rbee.queen.undertaking import Undertaking
from rbee.queen.upstream import Upstream, UpstreamBroken, UpstreamPool, UpstreamSilent

log = logging.getLogger(__name__)

ERROR_BODY_BYTES = 64 * 1024
FREE_SLOT_WITHIN_S = 5.0
LAST_WORDS_WITHIN_S = 2.0
_DECISIONS = {UseWorker: "warm", AwaitWorker: "loading", SpawnWorker: "spawn", Refusal: "refused"}
_TRY_LATER = (ErrorCode.ALL_SLOTS_BUSY, ErrorCode.WORKER_LOADING, ErrorCode.DRAINING)


@dataclass(frozen=True, slots=True)
class Means:
    """What tasks work with."""

    fleet: FleetWatch
    readiness: Readiness
    starts: Starts
    pool: UpstreamPool
    background: Background
    no_token_timeout_s: float


@dataclass(frozen=True, slots=True)
class _Seat:
    """A worker that has taken the request, and the connection on which it answers."""

    link: WorkerLink
    upstream: Upstream
    warm: bool

    @property
    def worker(self) -> WorkerInfo:
        return self.link.worker


class Task:
    """One inference on its way through the fleet."""

    def __init__(self, request: TaskRequest | EdgeRequest, means: Means) -> None:
        self.id = new_id("task")
        self.wish = Wish(request.model, request.node, request.backend, request.device)
        self.ended = asyncio.Event()
        self._means = means
        self._errand = errand_of(request, self.id)
        self._begun_at = time.monotonic()
        self._performing: asyncio.Task[None] | None = None
        self._cause: RbeeError | None = None

    def stop(self, cause: RbeeError) -> None:
        """End it early; its client is told *cause*."""
        self._cause = self._cause or cause
        if self._performing is not None:
            self._performing.cancel()

    async def perform(self, out: Recipient, request_id: str | None) -> None:
        """Do it, with every event given to *out*; cancel this to say that the client has left."""
        self._performing = asyncio.current_task()
        try:
            if self._cause is not None:
                raise self._cause
            await out(encode(TaskAccepted(task_id=self.id), "task"))
            async with _pings(out):
                seat = await self._seated(out)
            metrics.QUEEN_WAIT.observe(time.monotonic() - self._begun_at)
            await self._relayed(seat, out)
            metrics.QUEEN_TASKS.add(1, "done")
        except RbeeError as error:
            metrics.QUEEN_TASKS.add(1, error.code.value)
            log.warning("task failed", extra={"fields": {"task_id": self.id, "code": error.code.value}})
            await out.fail(error, request_id)
        except asyncio.CancelledError:
            metrics.QUEEN_TASKS.add(1, (self._cause.code if self._cause else ErrorCode.CANCELED).value)
            log.info("task stopped", extra={"fields": {"task_id": self.id}})
            if self._cause is None:
                raise
            await out.fail(self._cause, request_id)
        except Exception:
            metrics.QUEEN_TASKS.add(1, ErrorCode.INTERNAL.value)
            log.exception("BUG: a task died")
            await out.fail(RbeeError(ErrorCode.INTERNAL, "Something went wrong inside the queen."), request_id)
        finally:
            self.ended.set()

    async def _seated(self, out: Recipient) -> _Seat:
        """Find or start a worker and get it to take the request, with the retries that are due."""
        busy = list(BUSY_WORKER.waits())
        unreachable = list(HTTP_CONNECT.waits())
        warm = True
        while True:
            link, was_warm = await self._worker(out)
            warm = warm and was_warm
            worker = link.worker
            try:
                upstream = await self._asked(link)
            except (OSError, TimeoutError) as error:
                reason = f"worker {worker.worker_id} at {worker.url} does not answer"
                if not unreachable:
                    raise RbeeError(
                        ErrorCode.CONNECTION_TIMEOUT,
                        f"{reason[0].upper()}{reason[1:]}, after {len(HTTP_CONNECT.delays_s) + 1} attempts.",
                        details=_where(worker),
                    ) from error
                await self._pause(out, reason, unreachable, len(HTTP_CONNECT.delays_s))
                continue
            if upstream.status == 200:
                return _Seat(link, upstream, warm)
            refusal = await self._refusal(link, upstream)
            if refusal.code not in _TRY_LATER:
                raise refusal
            slots = _slots(worker, refusal)
            if not busy:
                raise RbeeError(
                    ErrorCode.ALL_SLOTS_BUSY,
                    f"Worker {worker.worker_id} on {worker.node} took no request in {len(BUSY_WORKER.delays_s) + 1} "
                    f"attempts: {refusal.message}",
                    details={**slots, **_where(worker)},
                    hint=f"Wait, or start another worker: rbee-keeper worker start --node {worker.node} "
                    f"--model {worker.model_ref}",
                ) from refusal
            reason = f"worker {worker.worker_id}: {_why_later(refusal, slots)}"
            await self._pause(out, reason, busy, len(BUSY_WORKER.delays_s))

    async def _worker(self, out: Recipient) -> tuple[WorkerLink, bool]:
        """Choose a worker, started if need be; tells whether it was there."""
        async for event in self._means.readiness.events(self.wish):
            await out(event)
        decision = self._means.fleet.place(self.wish)
        metrics.QUEEN_PLACEMENTS.add(1, _DECISIONS[type(decision)])
        match decision:
            case UseWorker(link=link, free=free):
                worker = link.worker
                human = f"worker {worker.worker_id} on {worker.node} is warm: reusing it"
                if not free:
                    human = f"worker {worker.worker_id} on {worker.node} is busy: trying it"
                await out(narration("queen-rbee", "reuse", human, "🔥"))
                return link, True
            case AwaitWorker():
                return await _followed(self._means.starts.joined(decision), out), False
            case SpawnWorker(node=node, backend=backend):
                which = "" if self.wish.backend is not None else ", the best it has"
                human = f"no worker runs {short(self.wish.model)}: starting one on {node} ({backend.value}{which})"
                await out(narration("queen-rbee", "place", human, "🧭"))
                return await _followed(self._means.starts.for_wish(self.wish, decision), out), False
            case Refusal():
                raise decision.error()

    async def _asked(self, link: WorkerLink) -> Upstream:
        """Send the request to the worker and wait for the head of its answer."""
        worker = link.worker
        try:
            with self._means.fleet.using(worker.worker_id):
                return await self._or_gone(worker, self._sent(link))
        except UpstreamSilent as error:
            await self._freed(link)
            raise RbeeError(
                ErrorCode.WORKER_STALLED,
                f"Worker {worker.worker_id} on {worker.node} took the request, but {error}.",
                details=_where(worker),
            ) from error
        except UpstreamBroken as error:
            raise await self._crashed(worker, 0, str(error)) from error

    async def _sent(self, link: WorkerLink) -> Upstream:
        errand = self._errand
        return await self._means.pool.send(
            "POST",
            link.worker.url,
            errand.path,
            key=link.api_key,
            request_id=self.id,
            body=errand.body,
            headers=errand.headers,
            patient=not errand.stream,
        )

    async def _or_gone(self, worker: WorkerInfo, asking: Coroutine[Any, Any, Upstream]) -> Upstream:
        """Wait for an answer that may take long only as long as the worker is there."""
        if self._errand.stream:
            return await asking
        registry = self._means.fleet.registry
        answer = asyncio.ensure_future(asking)
        gone = asyncio.ensure_future(
            self._means.fleet.until(lambda: True if registry.worker(worker.worker_id) is None else None)
        )
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not answer.done():
                answer.cancel()
        if answer.cancelled() or not answer.done():
            raise UpstreamBroken("it is gone")
        return answer.result()

    async def _refusal(self, link: WorkerLink, upstream: Upstream) -> RbeeError:
        """Read why the worker did not take the request."""
        worker = link.worker
        try:
            body = await upstream.read_all(ERROR_BODY_BYTES)
        except UpstreamBroken as error:
            return await self._crashed(worker, 0, str(error))
        finally:
            self._means.pool.release(worker.url, upstream)
        with contextlib.suppress(ValueError):
            error_ = RbeeError.from_body(json.loads(body))
            if error_ is not None:
                return error_
        return RbeeError(
            ErrorCode.INVALID_RESPONSE,
            f"{worker.url} answered HTTP {upstream.status}, but not as a worker does.",
            details={**_where(worker), "status": upstream.status},
        )

    async def _relayed(self, seat: _Seat, out: Recipient) -> None:
        """Pass the answer on; whatever happens, the worker's slot is free afterwards."""
        worker, watch = seat.worker, StreamWatch(self._errand.dialect)
        placed = TaskPlaced(
            task_id=self.id,
            node=worker.node,
            worker_id=worker.worker_id,
            backend=worker.backend,
            device=worker.device,
            warm=seat.warm,
        )
        try:
            with self._means.fleet.using(worker.worker_id):
                await out(encode(placed, "placed"))
                await out.begin()
                if self._errand.stream:
                    await relay(seat.upstream, out.send, watch, stall_s=self._means.no_token_timeout_s)
                else:
                    await relay_whole(seat.upstream, out.send, watch)
        except RbeeError as error:
            if error.code is ErrorCode.WORKER_CRASHED:
                raise await self._crashed(worker, watch.tokens, error.message) from error
            error.details.update(_where(worker))
            raise
        finally:
            self._means.pool.release(worker.url, seat.upstream)
            metrics.QUEEN_TOKENS.add(watch.tokens)
            if not watch.ended:
                await self._freed(seat.link)
        log.info(
            "task done", extra={"fields": {"task_id": self.id, "worker_id": worker.worker_id, "tokens": watch.tokens}}
        )

    async def _freed(self, link: WorkerLink) -> None:
        """Have the worker drop the request, and wait a little for its word that the slot is free."""
        freeing = self._means.background.start(self._dropped(link), name=f"cancel of {self.id}")
        await asyncio.wait({freeing}, timeout=FREE_SLOT_WITHIN_S)

    async def _dropped(self, link: WorkerLink) -> None:
        worker = link.worker
        try:
            upstream = await self._means.pool.send(
                "DELETE", worker.url, f"/v1/inference/{self.id}", key=link.api_key, request_id=self.id
            )
        except (OSError, TimeoutError, UpstreamBroken) as error:
            log.info("slot not freed", extra={"fields": {"worker_id": worker.worker_id, "reason": str(error)}})
            return
        self._means.pool.release(worker.url, upstream)

    async def _crashed(self, worker: WorkerInfo, tokens: int, reason: str) -> RbeeError:
        """Make the error of a worker that broke off, with its hive's account of the end if that comes soon."""
        gone = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_WITHIN_S):
                gone = await self._means.fleet.until(lambda: self._means.fleet.registry.gone(worker.worker_id))
        details = {**_where(worker), "tokens": tokens, "log_tail": gone.log_tail if gone else []}
        why = gone.reason if gone else reason.rstrip(".")
        return RbeeError(
            ErrorCode.WORKER_CRASHED,
            f"Worker {worker.worker_id} on {worker.node} broke off after {tokens} tokens: {why}.",
            details=details,
            hint=f"Try again; its log says more: rbee-keeper logs --node {worker.node}",
        )

    async def _pause(self, out: Recipient, reason: str, waits: list[float], of: int) -> None:
        """Say why and how long, and wait."""
        wait = waits.pop(0)
        human = f"{reason}; trying again in {wait:.1f} s (retry {of - len(waits)} of {of})"
        await out(narration("queen-rbee", "retry", human, "🔁"))
        await asyncio.sleep(wait)


async def _followed(start: Undertaking[WorkerLink], out: Recipient) -> WorkerLink:
    async for event in start.events():
        await out(event)
    return await start.result()


@contextlib.asynccontextmanager
async def _pings(out: Recipient) -> AsyncIterator[None]:
    """Keep a silent stream alive while there is nothing to say."""

    async def ping() -> None:
        while True:
            await asyncio.sleep(PING_INTERVAL_S)
            await out(PING)

    pinging = asyncio.create_task(ping(), name="pings")
    try:
        yield
    finally:
        pinging.cancel()
        await asyncio.gather(pinging, return_exceptions=True)


def _where(worker: WorkerInfo) -> dict[str, Any]:
    return {"worker_id": worker.worker_id, "node": worker.node}


def _slots(worker: WorkerInfo, refusal: RbeeError) -> dict[str, Any]:
    """Give the slots as the worker counts them, else as its hive did."""
    total = refusal.details.get("slots_total", worker.slots_total)
    return {"slots_total": total, "slots_busy": refusal.details.get("slots_busy", total)}


def _why_later(refusal: RbeeError, slots: dict[str, Any]) -> str:
    if refusal.code is ErrorCode.ALL_SLOTS_BUSY:
        return f"all slots are busy ({slots['slots_busy']} of {slots['slots_total']})"
    return refusal.message.rstrip(".")
