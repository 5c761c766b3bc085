"""Which connections have to go where strangers open too many."""

from __future__ import annotations

import logging

import pytest

from rbee.daemonkit.connections import REPORT_INTERVAL_S, SLOW_HEAD, ConnectionLimits, source_of


class Stranger:
    """A connection that remembers whether it was dropped."""

    dropped = False

    def drop(self) -> None:
        self.dropped = True


def opened(limits: ConnectionLimits, host: str, count: int, *, open_now: int = 1) -> list[Stranger]:
    """Open so many connections of one address."""
    strangers = [Stranger() for _ in range(count)]
    for stranger in strangers:
        limits.opened(stranger, host, open_now)
    return strangers


def test_an_address_has_a_limit_and_the_oldest_goes() -> None:
    """Of one address too many may not wait; the others are not touched."""
    limits = ConnectionLimits(per_address=2, total=100)
    other = opened(limits, "192.0.2.9", 2)

    first, second, third = opened(limits, "192.0.2.1", 3)

    assert (first.dropped, second.dropped, third.dropped) == (True, False, False)
    assert not any(stranger.dropped for stranger in other)
    assert limits.waiting == 4


def test_who_has_shown_a_key_is_not_counted() -> None:
    """A client may have any number of connections on which a request was authenticated."""
    limits = ConnectionLimits(per_address=2, total=100)
    known = opened(limits, "192.0.2.1", 2)
    for connection in known:
        limits.settled(connection)

    more = opened(limits, "192.0.2.1", 2)

    assert not any(connection.dropped for connection in [*known, *more])


def test_loopback_has_no_limit_of_its_own() -> None:
    """The parts of rbee reach each other over loopback, a thousand streams at once."""
    limits = ConnectionLimits(per_address=2, total=2000)

    assert not any(stranger.dropped for stranger in opened(limits, "127.0.0.1", 1000))
    assert not any(stranger.dropped for stranger in opened(limits, "::1", 1000))


def test_the_total_holds_for_all() -> None:
    """Below the limit of open files, whoever has waited longest makes room, from loopback too."""
    limits = ConnectionLimits(per_address=2, total=10)
    first, second = opened(limits, "127.0.0.1", 2, open_now=2)

    opened(limits, "192.0.2.1", 1, open_now=11)

    assert (first.dropped, second.dropped) == (True, False)


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", ""),
        ("::ffff:127.0.0.1", ""),
        ("", ""),
    ],
)
def test_an_ipv6_network_is_one_source(host: str, source: str) -> None:
    """A stranger has as many IPv6 addresses as he likes, in one network."""
    assert source_of(host) == source


def test_what_was_closed_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """One line says how many, and the next one comes ten seconds later at the earliest."""
    limits = ConnectionLimits(per_address=2, total=100)
    caplog.set_level(logging.WARNING)

    for second in range(int(REPORT_INTERVAL_S) + 1):
        for _ in range(100):
            limits.note(SLOW_HEAD)
        limits.report(1000.0 + second)

    assert [record.fields[SLOW_HEAD] for record in caplog.records] == [100, 1000]  # type: ignore[attr-defined]
