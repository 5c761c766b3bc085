"""Wait for the hives that a request may need, and start the local one, before the request is placed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import LOCALHOST_NODE
from rbee.errors import RbeeError
from rbee.queen.fleet.state import FleetState
from rbee.queen.local_hive.supervisor import LocalHive
from rbee.queen.progress import Event, narration
from rbee.queen.scheduling.placement import UseWorker
from rbee.queen.scheduling.rejections import Refusal
from rbee.queen.scheduling.request import PlacementRequest

FIRST_CONTACT_TIMEOUT_S = 6.0


class Readiness:
    """Wait for channels that were never tried, and start the local hive where it is needed.

    Args:
        local: the local hive; None where the queen has none.
        local_timeout_s: how long the local hive's channel may take once it serves.
    """

    def __init__(self, fleet: FleetState, local: LocalHive | None, *, local_timeout_s: float) -> None:
        self._fleet = fleet
        self._local = local
        self._local_timeout_s = local_timeout_s

    def is_settled(self, placement: PlacementRequest) -> bool:
        """Return whether placing the request now gives an answer that a moment's waiting would not change.

        It does where a worker has a free slot for it, whatever the other hives of a large fleet are doing.
        """
        return self._is_heard(placement.node) or self._is_served(placement)

    def is_ready(self, placement: PlacementRequest) -> bool:
        """Return whether nothing at all is to be waited for before the request is placed."""
        return (self._is_heard(placement.node) and self._all_listed()) or self._is_served(placement)

    async def events(self, placement: PlacementRequest) -> AsyncIterator[Event]:
        """Wait for the hives that the request needs; yield narration. Raises RbeeError if the local hive fails."""
        await self._wait_for_first_contact(placement.node, placement)
        # Without a node of its own, a request needs the local hive only where no other one can run it.
        if self._needs_local(placement.node) and (
            placement.node is not None or isinstance(self._fleet.place(placement), Refusal)
        ):
            async for event in self._start_local():
                yield event
        # Which of several has the model decides, unless a worker has it loaded; one alone is asked soon enough.
        several = placement.node is None and len(self._fleet.registry.connected) > 1
        if several and not isinstance(self._fleet.place(placement), UseWorker):
            await self.wait_for_catalogs()

    async def ensure(self, placement: PlacementRequest) -> None:
        """Wait as `events` does, without the narration."""
        if self.is_ready(placement):
            return
        async for _ in self.events(placement):
            pass

    async def ensure_node(self, node: str) -> None:
        """Wait until the hive of *node* was tried at least once, and start it if it is the local one."""
        await self._wait_for_first_contact(node)
        if self._needs_local(node):
            async for _ in self._start_local():
                pass

    async def wait_for_catalogs(self) -> None:
        """Wait until every connected hive has reported its models."""
        if self._all_listed():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_CONTACT_TIMEOUT_S):
                await self._fleet.wait_for(lambda: self._all_listed() or None)

    async def _wait_for_first_contact(self, node: str | None, placement: PlacementRequest | None = None) -> None:
        """Wait until each hive that may be used was tried, or until a worker can take the request as it is."""

        def done() -> bool:
            return not self._untried(node) or (placement is not None and self._is_served(placement))

        if not done():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_CONTACT_TIMEOUT_S):
                    await self._fleet.wait_for(lambda: done() or None)

    async def _start_local(self) -> AsyncIterator[Event]:
        """Start the local hive and wait for its channel. Raises RbeeError where that fails."""
        assert self._local is not None
        yield narration("queen-rbee", "start-hive", f"hive {LOCALHOST_NODE}: starting", "🐣")
        try:
            await self._local.ensure()
            async with asyncio.timeout(self._local_timeout_s):
                await self._fleet.wait_for(lambda: self._fleet.connected(LOCALHOST_NODE) or None, LOCALHOST_NODE)
        except TimeoutError as error:
            raise RbeeError(
                ErrorCode.CONNECTION_TIMEOUT,
                f"The hive on {LOCALHOST_NODE} did not open its channel within {self._local_timeout_s:g} s.",
                details={"log": str(self._local.log_path)},
                hint=f"See its log: {self._local.log_path}",
            ) from error
        moved = self._local.moved_to
        port = "" if moved is None else f" on port {moved}, because its configured port is in use"
        yield narration("queen-rbee", "hive-ready", f"hive {LOCALHOST_NODE}: connected{port}", "🏠")

    def _is_heard(self, node: str | None) -> bool:
        """Return whether every hive that may be used is connected or was tried."""
        return not self._needs_local(node) and not self._untried(node)

    def _is_served(self, placement: PlacementRequest) -> bool:
        decision = self._fleet.place(placement)
        return isinstance(decision, UseWorker) and decision.free > 0

    def _all_listed(self) -> bool:
        return not self._fleet.registry.unlisted

    def _needs_local(self, node: str | None) -> bool:
        return self._local is not None and node in (None, LOCALHOST_NODE) and not self._fleet.connected(LOCALHOST_NODE)

    def _untried(self, node: str | None) -> bool:
        """Return whether a hive that may be used has neither answered nor failed yet."""
        untried = self._fleet.registry.untried
        if node is not None:
            return node in untried and (node != LOCALHOST_NODE or self._local is None)
        # The local hive is started where it is needed, and not waited for before.
        local = self._local is not None and LOCALHOST_NODE in untried
        return len(untried) > local
