"""Tickets: good for one request to one path, for a moment, and nothing else."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from rbee.contracts.errors import ErrorCode
from rbee.daemonkit.tickets import COPY_LIFE_S, LIFE_S, Tickets, check_copy, issue
from rbee.errors import RbeeError

PATH = "/v1/chat/completions"
NOW = 1_700_000_000.0


def query(ticket: str) -> bytes:
    return f"ticket={quote(ticket)}".encode()


def test_a_ticket_is_taken_once() -> None:
    """The first request with a ticket passes, the second one with the same is refused."""
    tickets = Tickets("key", now=lambda: NOW)
    ticket = query(issue("key", PATH, now=NOW))

    assert tickets.redeem(PATH, ticket)
    with pytest.raises(RbeeError, match="used already") as caught:
        tickets.redeem(PATH, ticket)
    assert caught.value.code is ErrorCode.INVALID_API_KEY


def test_a_query_without_a_ticket_is_no_ticket() -> None:
    """Where there is no ticket the key decides."""
    assert not Tickets("key").redeem(PATH, b"")
    assert not Tickets("key").redeem(PATH, b"model=bee&ticket=")


def test_a_query_of_many_fields_is_read_like_any_other() -> None:
    """Who has no key can send any query, and gets an answer in words, not a failure of the daemon."""
    many = b"&".join(b"a=%d" % number for number in range(5000))

    assert not Tickets("key").redeem(PATH, many)
    with pytest.raises(RbeeError, match="not valid for this request"):
        Tickets("key").redeem(PATH, many + b"&ticket=x")


@pytest.mark.parametrize("late_s", [LIFE_S + 1, 3600, -3600])
def test_a_ticket_is_good_for_a_moment(late_s: int) -> None:
    """One that is out of date is refused, and so is one of a machine whose clock is far away."""
    tickets = Tickets("key", now=lambda: NOW + late_s)

    with pytest.raises(RbeeError, match="expired"):
        tickets.redeem(PATH, query(issue("key", PATH, now=NOW)))


@pytest.mark.parametrize(
    "ticket",
    [
        issue("other", PATH, now=NOW),
        issue("key", "/v1/admin/shutdown", now=NOW),
        issue("key", PATH, now=NOW).replace("17000", "27000", 1),
        issue("key", PATH, now=NOW)[:-1],
        "--",
        "x",
        "9" * 5000,
        "é-é-é",
    ],
    ids=["another key", "another path", "a later end", "cut", "empty parts", "a word", "long", "not ASCII"],
)
def test_a_ticket_that_was_not_written_for_this_is_refused(ticket: str) -> None:
    """Nothing but a signature with the daemon's key over path and end lets a request in."""
    with pytest.raises(RbeeError, match="not valid for this request"):
        Tickets("key", now=lambda: NOW).redeem(PATH, query(ticket))


def test_used_tickets_are_forgotten_when_they_are_out_of_date() -> None:
    """What is kept of tickets does not grow with their number."""
    clock = [NOW]
    tickets = Tickets("key", now=lambda: clock[0])
    for _ in range(500):
        clock[0] += 1
        assert tickets.redeem(PATH, query(issue("key", PATH, now=clock[0])))

    assert len(tickets._used) <= LIFE_S + 1


FILES = "/v1/model-files/tiny-1234abcd"


def test_a_copy_may_show_its_ticket_again() -> None:
    """A copy that is taken up again shows the same ticket, until it expires."""
    ticket = issue("key", FILES, now=NOW, life_s=COPY_LIFE_S)

    for later_s in (0, 1, COPY_LIFE_S - 1):
        check_copy("key", FILES, ticket, now=NOW + later_s)
    for wrong_s in (COPY_LIFE_S, -COPY_LIFE_S - 1):
        with pytest.raises(RbeeError, match="expired, or the clocks"):
            check_copy("key", FILES, ticket, now=NOW + wrong_s)


@pytest.mark.parametrize(("key", "path"), [("other", FILES), ("key", f"{FILES}0"), ("key", PATH)])
def test_a_ticket_for_a_copy_is_for_one_model_of_one_hive(key: str, path: str) -> None:
    """The ticket for a model opens no other one, no other route, and no other hive."""
    ticket = issue("key", FILES, now=NOW, life_s=COPY_LIFE_S)

    with pytest.raises(RbeeError, match="not valid for this request") as caught:
        check_copy(key, path, ticket, now=NOW)
    assert caught.value.code is ErrorCode.INVALID_API_KEY
