"""Keep in the queen's database what clients have used, by model and day, and add it up for a report."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, delete, func, insert, select, tuple_, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from rbee.contracts.errors import ErrorCode
from rbee.contracts.usage import UsageDimension, UsageQuery, UsageReport, UsageRow, UsageTotals
from rbee.errors import RbeeError
from rbee.queen.sql import SqlDatabase
from rbee.queen.tables import KEY_USAGE
from rbee.queen.usage.ledger import Account, Usage

_COUNTS: Final = tuple(asdict(Usage()))
_SEPARATOR: Final = "/"


class UsageTable:
    """Rows of usage."""

    def __init__(self, sql: SqlDatabase) -> None:
        self._sql = sql

    async def of_day(self, day: str) -> dict[str, Usage]:
        """Return what each client used on *day*, such as 2026-11-28."""
        statement = select(KEY_USAGE.c.client, *_sums()).where(KEY_USAGE.c.day == day).group_by(KEY_USAGE.c.client)
        rows = await self._sql.run(lambda connection: connection.execute(statement).all())
        return {client: _usage(counts) for client, *counts in rows}

    async def add(self, used: Mapping[Account, Usage]) -> None:
        """Add what was used to the counts, in one transaction."""

        def work(connection: Connection) -> None:
            for account, usage in used.items():
                _add(connection, account, usage)

        try:
            await self._sql.run(work)
        except IntegrityError:  # another queen began the same row: now there is one to add to
            await self._sql.run(work)

    async def remove_before(self, day: str) -> int:
        """Remove the days before *day*; return how many rows those were."""
        statement = delete(KEY_USAGE).where(KEY_USAGE.c.day < day)
        return await self._sql.run(lambda connection: connection.execute(statement).rowcount)

    async def report(self, query: UsageQuery) -> UsageReport:
        """Add up what was used. Raises RbeeError INVALID_REQUEST for an `after` that was no page's `next`."""
        by = [dimension for dimension in UsageDimension if dimension in query.by]
        keys = [KEY_USAGE.c[dimension.value] for dimension in by]
        asked = _conditions(query)
        rows = select(*keys, *_sums()).where(*asked, *_beyond(keys, query.after)).group_by(*keys).order_by(*keys)

        def work(connection: Connection) -> tuple[Sequence[Row[Any]], Row[Any]]:
            page = connection.execute(rows.limit(query.limit + 1)).all()
            return page, connection.execute(select(*_sums()).where(*asked)).one()

        page, total = await self._sql.run(work)
        shown = page[: query.limit]
        return UsageReport(
            rows=[
                UsageRow(**dict(zip(by, row, strict=False)), **_totals(_usage(row[len(by) :])).model_dump())
                for row in shown
            ],
            total=_totals(_usage(total)),
            next=_SEPARATOR.join(shown[-1][: len(by)]) if len(page) > len(shown) else None,
        )


def _sums() -> list[ColumnElement[Any]]:
    return [func.sum(KEY_USAGE.c[name]) for name in _COUNTS]


def _usage(sums: Sequence[Any]) -> Usage:
    """Return the sums of columns; of no rows they are null, and some databases have decimals."""
    *counts, joules = sums
    requests, prompt, cached, answer, device_us = (int(count or 0) for count in counts)
    return Usage(requests, prompt, cached, answer, device_us, None if joules is None else float(joules))


def _totals(usage: Usage) -> UsageTotals:
    return UsageTotals(
        requests=usage.requests,
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        answer_tokens=usage.answer_tokens,
        device_seconds=usage.device_us / 1_000_000,
        joules=None if usage.joules is None else round(usage.joules, 3),
    )


def _conditions(query: UsageQuery) -> list[ColumnElement[bool]]:
    columns = KEY_USAGE.c
    asked = []
    if query.client is not None:
        asked.append(columns.client == query.client)
    if query.model is not None:
        asked.append(columns.model == query.model)
    if query.since is not None:
        asked.append(columns.day >= query.since.isoformat())
    if query.until is not None:
        asked.append(columns.day <= query.until.isoformat())
    return asked


def _beyond(keys: Sequence[ColumnElement[Any]], after: str) -> list[ColumnElement[bool]]:
    """Return the condition of the rows after the one that ended the page before; the last of its parts has slashes."""
    if not after:
        return []
    parts = after.split(_SEPARATOR, len(keys) - 1)
    if len(parts) != len(keys):
        raise RbeeError(
            ErrorCode.INVALID_REQUEST,
            "'after' is not the 'next' of a page of the same list.",
            param="after",
            hint="Ask for the first page without 'after', and for each further one with the 'next' of the one before.",
        )
    return [tuple_(*keys) > tuple_(*parts)]


def _add(connection: Connection, account: Account, usage: Usage) -> None:
    hashed = hashlib.sha256(account.model.encode("utf-8", "surrogatepass")).hexdigest()
    key = {"client": account.client, "model_sha256": hashed, "day": account.day}
    counts = asdict(usage)
    changed = connection.execute(
        update(KEY_USAGE)
        .where(*(KEY_USAGE.c[name] == value for name, value in key.items()))
        .values(
            {name: func.coalesce(KEY_USAGE.c[name], 0) + value for name, value in counts.items() if value is not None}
        )
    )
    if not changed.rowcount:
        connection.execute(insert(KEY_USAGE).values({**key, "model": account.model, **counts}))
