"""`rbee-keeper keys`: options become fields, and times are read and shown as people write them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rbee.keeper.ui.times import date_text, parse_day, parse_expiry
from tests.support.keeper import rbee
from tests.support.stand_in_queen import StandInQueen

NOW = 1_800_014_400


@pytest.fixture(name="queen")
def _queen() -> Iterator[StandInQueen]:
    with StandInQueen() as queen:
        yield queen


@pytest.mark.parametrize(
    ("text", "unix"),
    [
        ("12h", NOW + 12 * 3600),
        ("30d", NOW + 30 * 86_400),
        ("2W", NOW + 14 * 86_400),
        ("2027-01-15", NOW - 12 * 3600),
        ("2027-01-15T12:00", NOW),
        ("2027-01-15T13:00+01:00", NOW),
        ("soon", None),
        ("30", None),
        ("", None),
    ],
)
def test_an_expiry_is_a_span_or_a_date(text: str, unix: int | None) -> None:
    """Spans count from now, dates without a zone are UTC, anything else is refused."""
    assert parse_expiry(text, NOW) == unix


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("30d", "2026-12-16"),
        ("2W", "2027-01-01"),
        ("13h", "2027-01-14"),
        ("2027-01-10", "2027-01-10"),
        ("2027-02-30", None),
        ("2027-01-10T12:00", None),
        ("999999w", None),
        ("yesterday", None),
    ],
)
def test_a_day_is_a_span_back_or_a_date(text: str, day: str | None) -> None:
    """Spans count back from now, days are those of UTC, anything else is refused."""
    assert parse_day(text, NOW) == day


def test_times_are_shown_in_utc() -> None:
    """To the minute, and a word where there is none."""
    assert date_text(NOW, none="never") == "2027-01-15 12:00"
    assert date_text(None, none="never") == "never"


@pytest.mark.parametrize("option", [["--expires", "soon"], ["--tasks", "0"], ["--priority", "11"], ["--may", "all"]])
def test_a_wrong_option_is_refused_before_the_queen_is_asked(option: list[str]) -> None:
    """It is wrong usage, exit code 2, and the message names the option."""
    ran = rbee("keys", "add", "guest", *option)

    assert ran.code == 2
    assert option[0] in ran.stderr


def test_a_change_without_a_change_is_refused() -> None:
    """`keys set NAME` alone says what can be changed."""
    ran = rbee("keys", "set", "guest")

    assert ran.code == 2
    assert "--tasks" in ran.stderr


@pytest.mark.parametrize("name", ["a b", "", "é", "x" * 64])
def test_a_name_that_no_client_can_have_is_refused_in_words(queen: StandInQueen, name: str) -> None:
    """The error names what a name may be made of, and nothing is asked of the queen."""
    ran = rbee("keys", "add", name, env=queen.environ())

    assert ran.code == 2
    assert "letters, digits, dots, dashes and underscores" in ran.stderr
    assert queen.requests("POST", "/v2/keys/add") == []
