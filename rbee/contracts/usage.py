"""What clients have used, by model and day: `GET /v2/usage`."""

from __future__ import annotations

import re
from datetime import date
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rbee.contracts.keys import KeyText
from rbee.contracts.models import ModelText
from rbee.contracts.queen import MAX_PAGE

_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


def _parse_day(value: object) -> object:
    """Parse a date; pydantic would take a number for seconds since the epoch."""
    if not isinstance(value, str):
        return value
    if not _DAY.fullmatch(value):
        raise ValueError("write a date as YYYY-MM-DD, such as 2026-11-28")
    return date.fromisoformat(value)


Day = Annotated[date, BeforeValidator(_parse_day)]


class UsageDimension(StrEnum):
    """What usage is told apart by; the order of the members is that of the rows."""

    DAY = "day"
    CLIENT = "client"
    MODEL = "model"


class UsageQuery(BaseModel):
    """`GET /v2/usage`: which usage, told apart by what. Days are of UTC, `since` and `until` are among them.

    A page has at most `limit` rows, those after the `next` of the page before.
    """

    model_config = ConfigDict(extra="forbid", defer_build=True)

    client: KeyText | None = None
    model: ModelText | None = None
    since: Day | None = None
    until: Day | None = None
    by: list[UsageDimension] = Field(default=list(UsageDimension), min_length=1, max_length=len(UsageDimension))
    limit: int = Field(default=MAX_PAGE, ge=1, le=MAX_PAGE)
    after: str = Field(default="", max_length=10_000)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.since is not None and self.until is not None and self.since > self.until:
            raise ValueError(f"'since' ({self.since}) is after 'until' ({self.until})")
        return self


class UsageTotals(BaseModel):
    """Sums of usage; `cached_tokens` are some of those of prompts.

    `device_seconds` are those for which engines computed: the time of each batch is shared by the rows that each
    request had in it, so that seconds of several requests at once add up to those that passed. A request whose worker
    was lost has none.
    `joules` are what devices took while requests ran there, shared by the time for which each ran, as far as devices
    tell; null where none did. They come with the next reading of the device, 12 s later at most.
    Of a request that was redirected to its worker nothing is known but that it was made.
    """

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    device_seconds: float = 0.0
    joules: float | None = None


class UsageRow(UsageTotals):
    """Usage of one client, model and day, or of all where it is not told apart by them.

    `client` is the name of a key, or `operator` for the queen's own. `model` is the name by which it was asked for, or
    that of the fallback that answered in its place.
    """

    day: date | None = None
    client: str | None = None
    model: str | None = None


class UsageReport(BaseModel):
    """The answer to `GET /v2/usage`: rows by day, client and model; `total` is of all pages together."""

    rows: list[UsageRow]
    total: UsageTotals
    next: str | None = None
