"""Count what clients use, beside the requests, and write it into the queen's database a batch at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from rbee.contracts.devices import DeviceEnergy
from rbee.errors import RbeeError
from rbee.observe import metrics
from rbee.queen.database import Database
from rbee.queen.hive import Place
from rbee.queen.usage.energy import EnergyMeter, Payer
from rbee.queen.usage.ledger import Usage, UsageLedger, day_of

if TYPE_CHECKING:
    from rbee.contracts.usage import UsageQuery, UsageReport
    from rbee.queen.usage.table import UsageTable

log = logging.getLogger(__name__)
WRITE_INTERVAL_S: Final = 5.0
DAY_S: Final = 86_400
MAX_SERIES: Final = 1000
"""Pairs of client and model that metrics tell apart; the others are counted together."""
OTHERS: Final = ("(other)", "(other)")


class UsageStore:
    """What clients use.

    Args:
        keep_days: how many days are kept, with today.
        create: whether a database is created for it; else it is written where there is one.
        now: returns seconds since the epoch.
        clock: returns seconds of a steady clock.
    """

    def __init__(
        self,
        database: Database,
        *,
        keep_days: int,
        create: bool,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._keep_days = keep_days
        self._create = create
        self._now = now
        self._clock = clock
        self._ledger = UsageLedger()
        self._meter = EnergyMeter()
        self._writing = asyncio.Lock()
        self._removed_at = ""
        self._series: set[tuple[str, str]] = set()

    async def load(self) -> None:
        """Go on from what an earlier run of the queen counted today."""
        if self._database.opened is not None:
            now = self._now()
            self._ledger.restore(await (await self._table()).of_day(day_of(now)), now)

    def record(self, client: str, model: str, usage: Usage) -> None:
        """Count what a request used of a model, as its client named it."""
        self._ledger.record(client, model, usage, self._now())
        labels = self._labels(client, model)
        metrics.QUEEN_USAGE_REQUESTS.add(usage.requests, *labels)
        metrics.QUEEN_USAGE_TOKENS.add(usage.prompt_tokens, *labels, "prompt")
        metrics.QUEEN_USAGE_TOKENS.add(usage.cached_tokens, *labels, "cached")
        metrics.QUEEN_USAGE_TOKENS.add(usage.answer_tokens, *labels, "answer")
        metrics.QUEEN_USAGE_DEVICE.add(usage.device_us / 1_000_000, *labels)

    def today(self, client: str) -> Usage:
        """Return what *client* has used since midnight UTC."""
        return self._ledger.today(client, self._now())

    def tokens_today(self, client: str) -> int:
        """Return the tokens that *client* has used since midnight UTC."""
        return self.today(client).tokens

    @contextlib.contextmanager
    def running(self, client: str, model: str, place: Place) -> Iterator[None]:
        """Let a request share, as long as it runs, in what its device takes."""
        run = self._meter.begin(place, Payer(client, model), self._clock())
        try:
            yield
        finally:
            self._meter.end(run, self._clock())

    def energy_read(self, node: str, readings: Sequence[DeviceEnergy]) -> None:
        """Share out what the devices of a node took since their last readings."""
        now = self._clock()
        for reading in readings:
            place = (node, reading.backend, reading.index)
            for (client, model), joules in self._meter.read(place, reading.joules, now).items():
                self._ledger.record(client, model, Usage(joules=joules), self._now())
                metrics.QUEEN_USAGE_JOULES.add(joules, *self._labels(client, model))

    def hive_lost(self, node: str) -> None:
        """Begin anew with the devices of a node that was lost."""
        self._meter.forget(node)

    async def keep_writing(self) -> None:
        """Write now and then, without an end."""
        while True:
            await asyncio.sleep(WRITE_INTERVAL_S)
            await self.write()

    async def write(self) -> None:
        """Write what was used since the last time, and once a day remove what is too old.

        What cannot be written is kept for the next time.
        """
        async with self._writing:  # at the end, wait for a write that is under way
            used = self._ledger.take() if self._create or self._database.opened is not None else {}
            try:
                if used:
                    await (await self._table()).add(used)
            except RbeeError as error:
                self._ledger.put_back(used)
                log.error("usage not written", extra={"fields": {"reason": error.message}})
                return
            await self._remove_old()

    async def report(self, query: UsageQuery) -> UsageReport:
        """Add up what was used until now. Raises RbeeError where the database cannot be read."""
        table = await self._table()
        await self.write()
        return await table.report(query)

    async def _remove_old(self) -> None:
        now = self._now()
        today = day_of(now)
        if today == self._removed_at or self._database.opened is None:
            return
        try:
            removed = await (await self._table()).remove_before(day_of(now - (self._keep_days - 1) * DAY_S))
        except RbeeError as error:
            log.error("old usage not removed", extra={"fields": {"reason": error.message}})
            return
        self._removed_at = today
        if removed:
            log.info("old usage removed", extra={"fields": {"rows": removed, "keep_days": self._keep_days}})

    def _labels(self, client: str, model: str) -> tuple[str, str]:
        """Return the labels of a metric: strangers' names must not fill the memory of whoever reads it."""
        labels = client, model
        if labels not in self._series:
            if len(self._series) >= MAX_SERIES:
                return OTHERS
            self._series.add(labels)
        return labels

    async def _table(self) -> UsageTable:
        from rbee.queen.usage.table import UsageTable

        return UsageTable(await self._database.require())
