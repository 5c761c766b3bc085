"""Count what each client uses, in memory; a batch at a time goes into the database. Pure."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple


class Account(NamedTuple):
    """What usage is counted by; `day` is a date of UTC, such as 2026-11-28.

    `model` is the name by which the client asked for it, or that of the fallback that answered in its place.
    """

    client: str
    model: str
    day: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests and tokens; cached tokens are part of the prompt's.

    `device_us` are the microseconds for which engines computed: those of each batch, shared by the rows that each
    request had in it. `joules` are a share of what devices took; None where none told.
    """

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    answer_tokens: int = 0
    device_us: int = 0
    joules: float | None = None

    @property
    def tokens(self) -> int:
        """Return the tokens that count against a limit: those of prompts and of answers."""
        return self.prompt_tokens + self.answer_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.answer_tokens + other.answer_tokens,
            self.device_us + other.device_us,
            self.joules if other.joules is None else other.joules + (self.joules or 0.0),
        )


class UsageLedger:
    """What was used today, and what of it is not written yet."""

    def __init__(self) -> None:
        self._day = ""
        self._today: dict[str, Usage] = {}
        self._unwritten: dict[Account, Usage] = {}

    def restore(self, today: dict[str, Usage], now: float) -> None:
        """Begin with what an earlier run of the queen counted today."""
        self._turn(now)
        for client, usage in today.items():
            self._today[client] = self._today.get(client, Usage()) + usage

    def record(self, client: str, model: str, usage: Usage, now: float) -> None:
        """Count *usage*. *now* is in seconds since the epoch."""
        self._turn(now)
        self._today[client] = self._today.get(client, Usage()) + usage
        account = Account(client, model, self._day)
        self._unwritten[account] = self._unwritten.get(account, Usage()) + usage

    def today(self, client: str, now: float) -> Usage:
        """Return what *client* has used since midnight UTC."""
        self._turn(now)
        return self._today.get(client, Usage())

    def take(self) -> dict[Account, Usage]:
        """Take what is to be written; `put_back` it if that fails."""
        taken, self._unwritten = self._unwritten, {}
        return taken

    def put_back(self, taken: dict[Account, Usage]) -> None:
        """Keep for later what could not be written."""
        for account, usage in taken.items():
            self._unwritten[account] = usage + self._unwritten.get(account, Usage())

    def _turn(self, now: float) -> None:
        day = day_of(now)
        if day != self._day:
            self._day, self._today = day, {}


def day_of(now: float) -> str:
    """Return the date in UTC."""
    return time.strftime("%Y-%m-%d", time.gmtime(now))
