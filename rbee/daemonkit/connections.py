"""Limit the connections of a daemon on which nobody has shown a key yet.

A connection waits from its opening to its first authenticated request; only those that wait are limited, so that a
client with many streams is not, nor many behind one proxy. Loopback has no limit of its own: queen, hive, workers and
keeper reach each other over it.
"""

from __future__ import annotations

import ipaddress
import logging
import resource
from collections import Counter
from typing import Final, Protocol

log = logging.getLogger(__name__)

PER_ADDRESS: Final = 256
MAX_OPEN_FILES: Final = 65_536
REPORT_INTERVAL_S: Final = 10.0

SLOW_HEAD: Final = "slow_heads"
SLOW_BODY: Final = "slow_bodies"
ADDRESS: Final = "too_many_of_an_address"
TOTAL: Final = "too_many"


class Connection(Protocol):
    """A connection that can be closed from here."""

    def drop(self) -> None:
        """Close it without an answer."""


class ConnectionLimits:
    """The connections that wait, oldest first, and what had to be closed.

    Args:
        per_address: connections of one address that may wait; the addresses of one IPv6 network are one.
        total: connections that may be open, whether they wait or not.
    """

    def __init__(self, *, per_address: int, total: int) -> None:
        self._per_address = per_address
        self._total = total
        self._waiting: dict[Connection, str] = {}
        self._by_address: dict[str, dict[Connection, None]] = {}
        self._closed: Counter[str] = Counter()
        self._next_report = 0.0

    @property
    def waiting(self) -> int:
        """Return how many connections wait."""
        return len(self._waiting)

    def opened(self, connection: Connection, host: str, open_now: int) -> None:
        """Add a connection; where there are too many then, drop the one that has waited longest."""
        address = source_of(host)
        self._waiting[connection] = address
        group = self._by_address.setdefault(address, {})
        group[connection] = None
        if address and len(group) > self._per_address:
            self._drop(next(iter(group)), ADDRESS)
        elif open_now > self._total:
            self._drop(next(iter(self._waiting)), TOTAL)

    def settled(self, connection: Connection) -> None:
        """Remove a connection that has shown a key, or is gone."""
        address = self._waiting.pop(connection, None)
        if address is not None:
            group = self._by_address[address]
            del group[connection]
            if not group:
                del self._by_address[address]

    def note(self, reason: str) -> None:
        """Count a connection that was closed."""
        self._closed[reason] += 1

    def report(self, now: float) -> None:
        """Log what was closed since the last line, at most every ten seconds."""
        if self._closed and now >= self._next_report:
            self._next_report = now + REPORT_INTERVAL_S
            log.warning("connections closed", extra={"fields": {**self._closed, "waiting": self.waiting}})
            self._closed.clear()

    def _drop(self, connection: Connection, reason: str) -> None:
        self.settled(connection)
        self.note(reason)
        connection.drop()


def source_of(host: str) -> str:
    """Return what an address counts as: itself, its IPv6 network (/64), or nothing where it has no limit."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        if mapped is None:
            return "" if address.is_loopback else str(ipaddress.ip_network((address, 64), strict=False))
        address = mapped
    return "" if address.is_loopback else str(address)


def raise_open_files() -> int:
    """Raise the limit of open files as far as this process may; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        return soft
    return wanted
