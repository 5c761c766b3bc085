"""The workers that a hive has, by id: who is there, what they have been promised, and whose key opens what."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from rbee.contracts.devices import Backend
from rbee.contracts.errors import ErrorCode
from rbee.contracts.workers import SpawnRequest, WorkerAccess, WorkerState
from rbee.errors import RbeeError
from rbee.hive.member import Member
from rbee.hive.supervision import Supervision


class Roster:
    """All workers; *clock* is that of *supervision*, *wall_clock* gives seconds since the epoch."""

    def __init__(
        self, supervision: Supervision, *, clock: Callable[[], float], wall_clock: Callable[[], float]
    ) -> None:
        self.members: dict[str, Member] = {}
        self._supervision = supervision
        self._clock = clock
        self._wall_clock = wall_clock

    @property
    def ports(self) -> set[int]:
        """The ports that workers have, or are about to have."""
        return {member.order.port for member in self.members.values()}

    @property
    def promised(self) -> dict[tuple[Backend, int], int]:
        """Bytes by device that workers which have not loaded yet will take."""
        taken: dict[tuple[Backend, int], int] = {}
        for worker_id, member in self.members.items():
            if self._supervision.workers[worker_id].phase in ("starting", "loading"):
                place = (member.order.backend, member.order.device)
                taken[place] = taken.get(place, 0) + member.need_bytes
        return taken

    def links(self) -> list[WorkerAccess]:
        """Give all workers with their keys, oldest first."""
        return [self.link(worker_id) for worker_id in self.members]

    def link(self, worker_id: str) -> WorkerAccess:
        """Give one worker with its key. Raises RbeeError WORKER_NOT_FOUND."""
        member = self.member(worker_id)
        life = self._supervision.workers[worker_id]
        last_active_unix = self._wall_clock() - (self._clock() - life.active_at)
        return WorkerAccess(worker=member.info(life, last_active_unix), api_key=member.order.api_key)

    def uses(self, model_ref: str) -> list[str]:
        """Give the ids of the workers that have a model loaded."""
        return [name for name, member in self.members.items() if member.order.model_ref == model_ref]

    def loading(self, request: SpawnRequest, model_ref: str) -> WorkerAccess | None:
        """Give a worker that is loading a model where *request* wants it."""
        for link in self.links():
            worker = link.worker
            wanted = request.backend in (None, worker.backend) and request.device in (None, worker.device)
            if wanted and worker.model_ref == model_ref and worker.state is WorkerState.LOADING:
                return link
        return None

    def opens_ready(self, key: str) -> bool:
        """Tell whether *key* is the key of some worker."""
        return any(_same(member.order.api_key, key) for member in self.members.values())

    def checked(self, worker_id: str, key: str) -> Member:
        """Give the worker that has both. Raises RbeeError WORKER_NOT_FOUND or INVALID_API_KEY."""
        member = self.member(worker_id)
        if not _same(member.order.api_key, key):
            raise RbeeError(ErrorCode.INVALID_API_KEY, f"This is not the key of worker {worker_id}.")
        return member

    def member(self, worker_id: str) -> Member:
        """Give a worker. Raises RbeeError WORKER_NOT_FOUND."""
        member = self.members.get(worker_id)
        if member is None:
            raise RbeeError(
                ErrorCode.WORKER_NOT_FOUND,
                f"There is no worker '{worker_id}' on this machine.",
                details={"worker_id": worker_id, "workers": list(self.members)},
            )
        return member


def _same(ours: str, given: str) -> bool:
    return hmac.compare_digest(ours.encode(), given.encode())
