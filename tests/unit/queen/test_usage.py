"""What clients use: counted by client, model and day, kept over restarts for a while, added up for a report."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydantic import ValidationError

from rbee.config.paths import Paths
from rbee.contracts.devices import Backend, DeviceEnergy
from rbee.contracts.errors import ErrorCode
from rbee.contracts.usage import UsageDimension, UsageQuery, UsageReport
from rbee.errors import RbeeError
from rbee.observe import metrics
from rbee.queen.database import Database
from rbee.queen.usage.energy import EnergyMeter, Payer
from rbee.queen.usage.ledger import Usage
from rbee.queen.usage.store import MAX_SERIES, UsageStore

R = TypeVar("R")
NOON = 1_800_014_400  # 2027-01-15 12:00 UTC
DAY = 86_400
GPU = ("attic", Backend.CUDA, 0)
ALICE, BOB = Payer("alice", "bee"), Payer("bob", "wasp")


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def with_usage(
    home: Path,
    work: Callable[[UsageStore], Awaitable[R]],
    clock: Clock | None = None,
    *,
    keep_days: int = 400,
    create: bool = True,
) -> R:
    """Run *work* with the usage of a queen's run, loaded before and written at its end."""

    async def run() -> R:
        database, now = Database(None, Paths(home)), clock or Clock()
        usage = UsageStore(database, keep_days=keep_days, create=create, now=now, clock=now)
        try:
            await database.open()
            await usage.load()
            return await work(usage)
        finally:
            await usage.write()
            await database.close()

    return asyncio.run(run())


def rows(home: Path, columns: str = "client, model, day, requests") -> list[tuple[Any, ...]]:
    """Read what is stored."""
    with sqlite3.connect(home / "beehives.db") as database:
        return database.execute(f"select {columns} from key_usage order by day, client, model").fetchall()


def test_usage_survives_a_restart_and_begins_anew_each_day(tmp_path: Path) -> None:
    """What is used in a day is added up over restarts, tokens of prompts and answers together, and from 0 the next."""
    clock = Clock()

    async def use(usage: UsageStore) -> int:
        usage.record("alice", "bee", Usage(1, 10, 4, 5, 1_500_000))
        await usage.write()
        usage.record("alice", "bee", Usage(1, 10, 4, 5, 500_000, 2.5))
        return usage.tokens_today("alice")

    assert with_usage(tmp_path, use, clock) == 30
    assert with_usage(tmp_path, use, clock) == 60
    clock.now += DAY / 2
    assert with_usage(tmp_path, use, clock) == 30

    assert rows(
        tmp_path, "client, model, day, requests, prompt_tokens, cached_tokens, answer_tokens, device_us, joules"
    ) == [
        ("alice", "bee", "2027-01-15", 4, 40, 16, 20, 4_000_000, 5.0),
        ("alice", "bee", "2027-01-16", 2, 20, 8, 10, 2_000_000, 2.5),
    ]


def test_usage_that_cannot_be_written_is_kept_for_later(tmp_path: Path) -> None:
    """A database that fails for a while loses no count, and none is counted twice."""

    async def work(usage: UsageStore) -> None:
        usage.record("alice", "bee", Usage(1))
        await usage.write()
        usage.record("alice", "bee", Usage(1))
        with sqlite3.connect(tmp_path / "beehives.db") as database:
            database.execute("alter table key_usage rename to elsewhere")
        await usage.write()
        with sqlite3.connect(tmp_path / "beehives.db") as database:
            database.execute("alter table elsewhere rename to key_usage")

    with_usage(tmp_path, work)

    assert rows(tmp_path) == [("alice", "bee", "2027-01-15", 2)]


def test_two_writes_at_once_write_everything_once(tmp_path: Path) -> None:
    """A write at the queen's end waits for one that is under way."""

    async def work(usage: UsageStore) -> None:
        usage.record("alice", "bee", Usage(1))
        under_way = asyncio.ensure_future(usage.write())
        await asyncio.sleep(0)
        usage.record("alice", "bee", Usage(1))
        await usage.write()
        assert under_way.done()

    with_usage(tmp_path, work)

    assert rows(tmp_path) == [("alice", "bee", "2027-01-15", 2)]


def test_a_queen_of_one_command_creates_no_database_for_usage(tmp_path: Path) -> None:
    """One that ends with its keeper writes usage where there is a database, and creates none."""

    async def use(usage: UsageStore) -> None:
        usage.record("operator", "bee", Usage(1))
        await usage.write()

    with_usage(tmp_path, use, create=False)
    assert list(tmp_path.iterdir()) == []

    with_usage(tmp_path, use)
    with_usage(tmp_path, use, create=False)
    assert rows(tmp_path) == [("operator", "bee", "2027-01-15", 2)]


def test_old_days_are_removed(tmp_path: Path) -> None:
    """So many days are kept, with today; what is older goes, also while a queen runs for long."""
    clock = Clock()

    async def use(usage: UsageStore) -> None:
        for day in range(3):
            clock.now = NOON + day * DAY
            usage.record("alice", "bee", Usage(1))
            await usage.write()

    with_usage(tmp_path, use, clock, keep_days=2)
    assert [day for _, _, day, _ in rows(tmp_path)] == ["2027-01-16", "2027-01-17"]

    clock.now += 2 * DAY

    async def nothing(usage: UsageStore) -> None:
        await usage.write()

    with_usage(tmp_path, nothing, clock, keep_days=2)
    assert rows(tmp_path) == []


def test_a_database_of_an_earlier_version_gets_the_columns_that_it_lacks(tmp_path: Path) -> None:
    """What it had counted stays, without time of devices, and goes on from there."""

    async def use(usage: UsageStore) -> None:
        usage.record("alice", "bee", Usage(1, 10, 4, 5, 500_000, 2.5))

    with_usage(tmp_path, use)
    with sqlite3.connect(tmp_path / "beehives.db") as database:
        database.execute("alter table key_usage drop column device_us")
        database.execute("alter table key_usage drop column joules")

    with_usage(tmp_path, use)

    assert rows(tmp_path, "requests, prompt_tokens, device_us, joules") == [(2, 20, 500_000, 2.5)]


def filled(home: Path) -> Clock:
    """Store what three clients used on two days; return the clock of the second."""
    clock = Clock(NOON - DAY)

    async def first(usage: UsageStore) -> None:
        usage.record("alice", "bee", Usage(1, 10, 4, 5, 1_000_000))
        usage.record("bob", "hf:bees/honey", Usage(1, 20, 0, 5, 2_000_000))

    async def second(usage: UsageStore) -> None:
        usage.record("alice", "hf:bees/honey", Usage(1, 10, 4, 5, 1_000_000, 3.0))
        usage.record("carol", "bee", Usage(2, 10, 4, 5, 500_000))

    with_usage(home, first, clock)
    clock.now = NOON
    with_usage(home, second, clock)
    return clock


def report(home: Path, clock: Clock, **query: Any) -> UsageReport:
    """Ask for a report."""
    return with_usage(home, lambda usage: usage.report(UsageQuery.model_validate(query)), clock)


@pytest.mark.parametrize(
    ("query", "keys", "requests"),
    [
        ({"by": ["client"]}, [("alice",), ("bob",), ("carol",)], [2, 1, 2]),
        ({"by": ["model", "day"]}, [("2027-01-14", "bee"), ("2027-01-14", "hf:bees/honey")], [1, 1]),
        ({"by": ["day"], "client": "alice"}, [("2027-01-14",), ("2027-01-15",)], [1, 1]),
        ({"by": ["model"], "since": "2027-01-15"}, [("bee",), ("hf:bees/honey",)], [2, 1]),
        ({"by": ["client"], "until": "2027-01-14"}, [("alice",), ("bob",)], [1, 1]),
        ({"by": ["client"], "model": "bee", "since": "2027-01-15", "until": "2027-01-15"}, [("carol",)], [2]),
        ({"client": "nobody"}, [], []),
    ],
)
def test_a_report_adds_up_what_is_not_told_apart(
    tmp_path: Path, query: dict[str, Any], keys: list[tuple[str, ...]], requests: list[int]
) -> None:
    """Rows are of what is asked for, in the order of days, clients and models; the total is of all that was asked."""
    if query.get("by") == ["model", "day"]:
        query = {**query, "until": "2027-01-14"}
    clock = filled(tmp_path)

    found = report(tmp_path, clock, **query)

    told = [
        tuple(str(value) for name in UsageDimension if (value := getattr(row, name.value)) is not None)
        for row in found.rows
    ]
    assert told == keys
    assert [row.requests for row in found.rows] == requests
    assert found.total.requests == sum(requests)


def test_a_report_has_what_was_used_a_moment_ago(tmp_path: Path) -> None:
    """What is not written yet counts; energy is null where no device told, and seconds are not rounded to none."""
    clock = filled(tmp_path)

    async def ask(usage: UsageStore) -> UsageReport:
        usage.record("carol", "bee", Usage(1, 1, 0, 1, 250_000))
        return await usage.report(UsageQuery(by=[UsageDimension.CLIENT]))

    found = with_usage(tmp_path, ask, clock)

    seen = {row.client: (row.requests, row.device_seconds, row.joules) for row in found.rows}
    assert seen == {"alice": (2, 2.0, 3.0), "bob": (1, 2.0, None), "carol": (3, 0.75, None)}
    assert (found.total.requests, found.total.device_seconds, found.total.joules) == (6, 4.75, 3.0)


def test_pages_follow_each_other_without_a_gap(tmp_path: Path) -> None:
    """Each page ends with what to ask the next one for, though names of models have slashes; each has the total."""
    clock = filled(tmp_path)
    whole = report(tmp_path, clock)
    paged, after = [], ""

    while True:
        page = report(tmp_path, clock, limit=1, after=after)
        assert (len(page.rows), page.total) == (1, whole.total)
        paged += page.rows
        if page.next is None:
            break
        after = page.next

    assert paged == whole.rows
    assert len(paged) == 4
    with pytest.raises(RbeeError, match="'after'") as caught:
        report(tmp_path, clock, after="2027-01-14")
    assert caught.value.code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"since": "yesterday"}, "YYYY-MM-DD"),
        ({"since": "1800014400"}, "YYYY-MM-DD"),
        ({"since": "2027-02-30"}, "day is out of range"),
        ({"since": "2027-01-02", "until": "2027-01-01"}, "'since' .* is after 'until'"),
        ({"by": []}, "at least 1"),
        ({"by": ["node"]}, "'day', 'client' or 'model'"),
        ({"limit": 0}, "greater than or equal to 1"),
        ({"whose": "alice"}, "not permitted"),
    ],
)
def test_what_cannot_be_asked_is_refused(query: dict[str, Any], reason: str) -> None:
    """Days are dates in their order, and what is told apart is named."""
    with pytest.raises(ValidationError, match=reason):
        UsageQuery.model_validate(query)
    assert UsageQuery.model_validate({"since": "2027-01-02"}).since == date(2027, 1, 2)


def test_metrics_tell_a_bounded_number_of_clients_and_models_apart(tmp_path: Path) -> None:
    """The first thousand pairs have series of their own, all others one together; nothing is left out of the sum."""
    before = sum(metrics.QUEEN_USAGE_REQUESTS.values.values())
    series = len(metrics.QUEEN_USAGE_REQUESTS.values)

    async def use(usage: UsageStore) -> None:
        for number in range(MAX_SERIES + 50):
            usage.record("zoe", f"model-{number}", Usage(1))
        usage.record("zoe", "model-0", Usage(1))

    with_usage(tmp_path, use, create=False)

    values = metrics.QUEEN_USAGE_REQUESTS.values
    assert len(values) <= series + MAX_SERIES + 1
    assert values["zoe", "model-0"] == 2
    assert values["(other)", "(other)"] == 50
    assert sum(values.values()) - before == MAX_SERIES + 51


def test_a_device_is_shared_by_those_who_ran_on_it() -> None:
    """Between two readings each pays by the time for which its requests ran, also one that still runs."""
    meter = EnergyMeter()
    assert meter.read(GPU, 1000.0, 0) == {}
    first = meter.begin(GPU, ALICE, 1)
    second = meter.begin(GPU, BOB, 4)
    meter.end(first, 7)

    assert meter.read(GPU, 1900.0, 10) == {ALICE: 450.0, BOB: 450.0}
    assert meter.read(GPU, 1900.0, 12) == {}, "the same reading, told again"
    assert meter.read(GPU, 2000.0, 20) == {BOB: 100.0}
    meter.end(second, 20)
    assert meter.read(GPU, 2500.0, 30) == {}, "nobody ran"


def test_energy_that_cannot_be_attributed_is_nobodys() -> None:
    """The first reading, one after the driver was loaded anew and one after the node was lost begin an interval."""
    meter = EnergyMeter()
    run = meter.begin(GPU, ALICE, 0)
    assert meter.read(GPU, 1000.0, 5) == {}
    assert meter.read(GPU, 10.0, 10) == {}
    meter.forget("attic")
    assert meter.read(GPU, 5000.0, 15) == {}
    assert meter.read(GPU, 5100.0, 20) == {ALICE: 100.0}
    meter.end(run, 21)

    other = meter.begin(("cellar", Backend.CPU, 0), BOB, 0)
    meter.end(other, 9)
    assert meter.read(GPU, 5200.0, 25) == {ALICE: 100.0}


def test_what_a_device_took_counts_for_client_and_model(tmp_path: Path) -> None:
    """Readings of a hive become joules of those who ran there; a device that does not tell leaves them null."""
    clock = Clock()

    async def use(usage: UsageStore) -> UsageReport:
        usage.energy_read("attic", [DeviceEnergy(backend=Backend.CUDA, index=0, joules=100.0)])
        with usage.running("alice", "bee", GPU), usage.running("bob", "wasp", ("attic", Backend.CPU, 0)):
            clock.now += 5
        usage.record("alice", "bee", Usage(1))
        usage.record("bob", "wasp", Usage(1))
        usage.energy_read("attic", [DeviceEnergy(backend=Backend.CUDA, index=0, joules=350.0)])
        return await usage.report(UsageQuery(by=[UsageDimension.CLIENT]))

    found = with_usage(tmp_path, use, clock)

    assert {row.client: (row.requests, row.joules) for row in found.rows} == {"alice": (1, 250.0), "bob": (1, None)}
