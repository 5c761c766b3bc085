"""Pace what is sent so that all transfers together stay within a rate. Pure: the time is an argument."""

from __future__ import annotations


class SendRate:
    """The bytes that may leave in a second, shared by whoever sends.

    Each piece has its time after the piece before it, whoever sent that, so that transfers get equal shares.
    """

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0

    def reserve(self, size: int, now: float) -> float:
        """Take the time of *size* bytes; return for how many seconds from *now* to wait before they are sent.

        What was not used of the past is not made up for.
        """
        begins = max(self._free_at, now)
        self._free_at = begins + size / self._bytes_per_s
        return begins - now
