"""The workers of this hive: carries out what supervision decides, and feeds it what happens."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from rbee.contracts.control import HiveMessage, WorkerChanged
from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import SpawnRequest, WorkerAccess, WorkerStopReceipt
from rbee.daemonkit.background import BackgroundTasks
from rbee.errors import RbeeError
from rbee.hive.hearing import Hearing
from rbee.hive.member import LAST_WORDS_S, Member
from rbee.hive.memory import LoadedModel, most_bytes
from rbee.hive.processes import WorkerOrder, WorkerProcess
from rbee.hive.quarantines import Quarantines
from rbee.hive.returned import Returns
from rbee.hive.roster import Roster
from rbee.hive.supervision import (
    Bound,
    Check,
    Drained,
    Event,
    Exited,
    Forget,
    Instruction,
    Kill,
    Leased,
    Leave,
    Replace,
    Report,
    Spawned,
    Stop,
    StopAsked,
    Supervision,
    Tick,
)
from rbee.observe import metrics

log = logging.getLogger(__name__)
TICK_S: Final = 0.5
PORT_RACES: Final = 5


Launch = Callable[[WorkerOrder], Awaitable[WorkerProcess]]


class Crew:
    """All workers, by id in the `roster`.

    Args:
        background: runs the watches over the workers.
        launch: starts a worker's process.
        next_port: gives another port for a worker whose port was taken by somebody else meanwhile.
        publish: tells the queens.
        on_replace: spawns another worker like the given request.
        on_leave: ends the hive.
        on_gone: told after a worker is gone.
        on_peak: told whenever a worker was seen to take more memory than before, in bytes.
        quarantines: told of crashes and of answered requests.
        returns: sees whether the memory of a worker that was stopped came back.
    """

    def __init__(
        self,
        supervision: Supervision,
        background: BackgroundTasks,
        *,
        launch: Launch,
        next_port: Callable[[], int],
        publish: Callable[[HiveMessage], None],
        on_replace: Callable[[SpawnRequest], None],
        on_leave: Callable[[str], None],
        on_gone: Callable[[], None],
        on_peak: Callable[[LoadedModel, int], None],
        returns: Returns,
        quarantines: Quarantines,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.roster = Roster(supervision, clock=clock, wall_clock=wall_clock)
        self._supervision = supervision
        self._background = background
        self._launch = launch
        self._next_port = next_port
        self._publish = publish
        self._on_replace = on_replace
        self._on_leave = on_leave
        self._on_gone = on_gone
        self._returns = returns
        self._quarantines = quarantines
        self._clock = clock
        self._wall_clock = wall_clock
        self._hearing = Hearing(supervision, self._feed, on_peak=on_peak, quarantines=quarantines, clock=clock)

    def bound(self, worker_id: str, key: str) -> None:
        """Take a worker's own word that its port is bound. Raises RbeeError if it is not that worker's key."""
        self.roster.checked(worker_id, key)
        self._feed(Bound(worker_id, self._clock()))

    def heard_queen(self) -> None:
        """Note that a queen lives."""
        self._feed(Leased(self._clock()))

    async def add(
        self,
        order: WorkerOrder,
        request: SpawnRequest,
        url: str,
        need_bytes: int,
        loaded: LoadedModel,
        remark: str,
    ) -> WorkerAccess:
        """Start a worker; it is loading when this returns. Raises RbeeError if its process cannot be started."""
        if self._supervision.draining:
            raise RbeeError(ErrorCode.DRAINING, "The hive is stopping and starts no worker any more.")
        process = await self._launch(order)
        member = Member(order, request, url, need_bytes, loaded, process, self._wall_clock(), remark)
        self.roster.members[order.worker_id] = member
        self._feed(Spawned(order.worker_id, self._clock(), most_bytes(need_bytes)))
        self._background.start(self._follow(member), name="follow")
        fields = {"worker_id": order.worker_id, "pid": process.pid, "port": order.port, "model": order.model_ref}
        metrics.HIVE_STARTS.add()
        log.info("worker started", extra={"fields": {**fields, **({"remark": remark} if remark else {})}})
        return self.roster.link(order.worker_id)

    async def stop(self, worker_id: str, reason: str) -> WorkerStopReceipt:
        """Stop a worker, wait until it is gone and see that its memory came back.

        Raises RbeeError WORKER_NOT_FOUND.
        """
        member = self.roster.member(worker_id)
        began = self._clock()
        await self._weigh(member)
        self._feed(StopAsked(worker_id, began, reason))
        await member.gone.wait()
        return (await self._receipts([member], self._clock() - began))[0]

    async def stop_all(self, reason: str) -> list[WorkerStopReceipt]:
        """Stop all workers at once and wait until they are gone; none can be added any more."""
        began = self._clock()
        await asyncio.gather(*(self._weigh(member) for member in self.roster.members.values()))
        self._feed(Drained(began, reason))
        receipts = []
        while self.roster.members:
            members = list(self.roster.members.values())
            await asyncio.gather(*(member.gone.wait() for member in members))
            receipts += await self._receipts(members, self._clock() - began)
        return receipts

    async def run(self) -> None:
        """Let time pass for supervision, until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self._feed(Tick(self._clock()))
            self._quarantines.tell()

    def _feed(self, event: Event) -> None:
        for instruction in self._supervision.on(event):
            self._carry_out(instruction)

    def _carry_out(self, instruction: Instruction) -> None:
        if isinstance(instruction, Leave):
            log.warning("leaving", extra={"fields": {"reason": instruction.reason}})
            self._on_leave(instruction.reason)
            return
        member = self.roster.members[instruction.worker_id]
        match instruction:
            case Check():
                self._background.start(self._hearing.check(member), name="check")
            case Stop(reason=reason, unused=unused):
                metrics.HIVE_EVICTIONS.add(float(unused))
                log.info("stopping a worker", extra={"fields": {"worker_id": member.order.worker_id, "reason": reason}})
                self._note_end(member)
                member.process.terminate()
            case Kill(reason=reason, code=code):
                self._background.start(self._kill(member, reason, code), name="kill")
            case Report():
                self._publish(WorkerChanged(link=self.roster.link(member.order.worker_id)))
            case Forget(reason=reason, code=code):
                self._forget(member, reason, code)
            case Replace():
                self._on_replace(member.request)

    def _note_end(self, member: Member) -> None:
        if member.stop_began is None:
            member.stop_began = self._clock()
            member.memory_bytes = member.process.memory_bytes() or member.memory_bytes
            self._hearing.measure(member)

    async def _weigh(self, member: Member) -> None:
        """Note what its GPU has free while it still lives."""
        member.free_before = await self._returns.free_on(member.order.backend, member.order.device)

    async def _receipts(self, members: list[Member], seconds: float) -> list[WorkerStopReceipt]:
        receipts = []
        for member, returned in zip(
            members, await self._returns.look([member.stopped() for member in members]), strict=True
        ):
            receipts.append(member.receipt(seconds, returned))
            if returned.came_back is False:
                holders = [f"{holder.name} ({holder.pid})" for holder in returned.held_by]
                fields = {"worker_id": member.order.worker_id, "held_by": holders}
                log.error("memory did not come back", extra={"fields": fields})
        return receipts

    async def _kill(self, member: Member, reason: str, code: ErrorCode | None) -> None:
        self._note_end(member)
        worker_id = member.order.worker_id
        if code is ErrorCode.LOADING_TIMEOUT:
            member.error = await member.stuck_in_loading(self._supervision.policy.loading_s)
        log.warning("killing a worker", extra={"fields": {"worker_id": worker_id, "reason": reason}})
        member.killed = True
        member.process.kill()

    async def _follow(self, member: Member) -> None:
        """Hear what a worker says and notice its end, at once."""
        hearing = asyncio.ensure_future(self._hearing.listen(member, member.process))
        code = await member.process.wait()
        # What it said last may still be on its way through the lifeline.
        await asyncio.wait({hearing}, timeout=LAST_WORDS_S)
        hearing.cancel()
        if await self._relaunched(member):
            return
        self._feed(Exited(member.order.worker_id, self._clock(), code))

    async def _relaunched(self, member: Member) -> bool:
        """Start a worker again on another port if somebody took its port between the choice and the bind."""
        life = self._supervision.workers[member.order.worker_id]
        taken = member.error is not None and member.error.code is ErrorCode.PORT_IN_USE
        if not taken or life.phase != "starting" or member.races >= PORT_RACES:
            return False
        before = member.order.port
        try:
            port = self._next_port()
            order = replace(member.order, port=port)
            member.process = await self._launch(order)
        except RbeeError as error:
            member.error = error
            return False
        member.order, member.error, member.races = order, None, member.races + 1
        member.url = member.url.removesuffix(str(before)) + str(port)
        member.remark = f"port {before} in use by another program, took {port}"
        log.warning("worker moved", extra={"fields": {"worker_id": order.worker_id, "remark": member.remark}})
        self._feed(Spawned(order.worker_id, self._clock(), most_bytes(member.need_bytes)))
        self._background.start(self._follow(member), name="follow")
        return True

    def _forget(self, member: Member, reason: str, code: ErrorCode | None) -> None:
        gone = member.obituary(reason, code)
        self._publish(gone)
        fields: dict[str, Any] = {"worker_id": gone.worker_id, "reason": reason}
        if gone.error is not None:
            place = (member.order.backend, member.order.device)
            self._quarantines.crashed(member.order.model_ref, place, gone.error.code, reason)
            fields |= {"code": gone.error.code.value, "last_lines": gone.log_tail[-5:]}
        metrics.HIVE_ENDS.add(1, "no" if gone.crashed else "yes")
        if not member.served:
            metrics.HIVE_LOADS.add(1, gone.error.code.value if gone.error is not None else "stopped")
        log.log(logging.ERROR if gone.crashed else logging.INFO, "worker gone", extra={"fields": fields})
        del self.roster.members[gone.worker_id]
        if member.client is not None:
            self._background.start(member.client.close(), name="close")
        member.gone.set()
        self._on_gone()
