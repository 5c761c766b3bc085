"""See to it that the hives a task may need have had their chance to be there before it is placed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from rbee.contracts.errors import ErrorCode
from rbee.contracts.ids import LOCALHOST_NODE
from rbee.errors import RbeeError
from rbee.queen.fleet_watch import FleetWatch
from rbee.queen.local_hive import LocalHive
from rbee.queen.placement import UseWorker, Wish
from rbee.queen.refusals import Refusal
from rbee.queen.registry import Hive
from rbee.queen.story import Event, narration

FIRST_TRY_S = 6.0


class Readiness:
    """Wait for channels that were never tried, and bring the local hive up where it is needed.

    Args:
        local: the local hive; None where the queen has none.
        local_timeout_s: how long the local hive's channel may take once it serves.
    """

    def __init__(self, fleet: FleetWatch, local: LocalHive | None, *, local_timeout_s: float) -> None:
        self._fleet = fleet
        self._local = local
        self._local_timeout_s = local_timeout_s

    def settled(self, wish: Wish) -> bool:
        """Tell whether placing *wish* now gives an answer that a moment's waiting would not change."""
        return not self._needs_local(wish) and not self._untried(wish)

    def ready(self, wish: Wish) -> bool:
        """Tell whether nothing at all is to be waited for before *wish* is placed."""
        return self.settled(wish) and self._all_listed()

    async def events(self, wish: Wish) -> AsyncIterator[Event]:
        """Do what *wish* needs, with the narration of it. Raises RbeeError where it must have the local hive."""
        async for event in self._reached(wish):
            yield event
        # Which of several has the model decides, unless a worker has it loaded; one alone is asked soon enough.
        if wish.node is None and len(self._connected()) > 1 and not isinstance(self._fleet.place(wish), UseWorker):
            await self.listed()

    async def listed(self) -> None:
        """Wait until every connected hive has said which models it has."""
        if self._all_listed():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_TRY_S):
                await self._fleet.until(lambda: self._all_listed() or None)

    async def _reached(self, wish: Wish) -> AsyncIterator[Event]:
        if self._untried(wish):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FIRST_TRY_S):
                    await self._fleet.until(lambda: True if not self._untried(wish) else None)
        if self._local is None or not self._needs_local(wish):
            return
        if wish.node is None and not isinstance(self._fleet.place(wish), Refusal):
            return
        yield narration("queen-rbee", "start-hive", f"hive {LOCALHOST_NODE}: starting", "🐣")
        try:
            await self._local.ensure()
            async with asyncio.timeout(self._local_timeout_s):
                await self._fleet.until(lambda: True if self._fleet.connected(LOCALHOST_NODE) else None)
        except TimeoutError as error:
            raise RbeeError(
                ErrorCode.CONNECTION_TIMEOUT,
                f"The hive on {LOCALHOST_NODE} did not open its channel within {self._local_timeout_s:g} s.",
                details={"log": str(self._local.log_path)},
                hint=f"Its log says why: {self._local.log_path}",
            ) from error
        moved = self._local.moved_to
        port = "" if moved is None else f"; its usual port is taken, it listens on {moved}"
        yield narration("queen-rbee", "hive-ready", f"hive {LOCALHOST_NODE}: connected{port}", "🏠")

    async def met(self, wish: Wish) -> None:
        """Do the same for whoever has no use for the narration."""
        if self.ready(wish):
            return
        async for _ in self.events(wish):
            pass

    def _all_listed(self) -> bool:
        return all(hive.listed for hive in self._connected())

    def _connected(self) -> list[Hive]:
        return [hive for hive in self._fleet.registry.hives() if hive.connected]

    def _needs_local(self, wish: Wish) -> bool:
        return (
            self._local is not None
            and wish.node in (None, LOCALHOST_NODE)
            and not self._fleet.connected(LOCALHOST_NODE)
        )

    def _untried(self, wish: Wish) -> bool:
        """Tell whether a hive that *wish* may use has neither answered nor failed yet."""
        return any(
            not hive.connected and hive.last_error is None
            for hive in self._fleet.registry.hives()
            if wish.node in (None, hive.node) and (hive.node != LOCALHOST_NODE or self._local is None)
        )
