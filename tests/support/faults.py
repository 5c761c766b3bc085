"""Ways in which a download goes wrong, as the stand-in hub plays them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reset:
    """Send the fraction *at* of what was asked for, then a TCP reset."""

    at: float = 0.4


@dataclass(frozen=True, slots=True)
class Cut:
    """Send the fraction *at* of what was asked for, then close as if nothing were missing."""

    at: float = 0.4


@dataclass(frozen=True, slots=True)
class Stall:
    """Send the fraction *at* of what was asked for, then nothing, with the connection open."""

    at: float = 0.4


@dataclass(frozen=True, slots=True)
class Slow:
    """Send everything, at this many bytes a second, so that a test can watch or interrupt it."""

    bytes_per_s: int


@dataclass(frozen=True, slots=True)
class WrongBytes:
    """Send as many bytes as asked for, with the last one changed."""


@dataclass(frozen=True, slots=True)
class Truncated:
    """Send a shorter file than the metadata promised, and say that this is all of it."""

    at: float = 0.4


@dataclass(frozen=True, slots=True)
class Earlier:
    """Answer a Range with 206 and more than was asked for: from *by* bytes before it on; 0 means from the beginning."""

    by: int = 0

    def start(self, asked: int) -> int:
        """Give where an answer begins that should begin at *asked*."""
        return max(asked - self.by, 0) if self.by else 0


@dataclass(frozen=True, slots=True)
class Later:
    """Answer a Range with 206 and less than was asked for: from *by* bytes after its beginning on."""

    by: int = 1000

    def start(self, asked: int) -> int:
        """Give where an answer begins that should begin at *asked*."""
        return asked + self.by


@dataclass(frozen=True, slots=True)
class OnlyTheRest:
    """Answer a Range with 200 and what was asked for, as if that were the whole file."""


@dataclass(frozen=True, slots=True)
class Expired:
    """Refuse the address that the file's own led to, as a file host does whose signature is over."""

    status: int = 403


@dataclass(frozen=True, slots=True)
class Status:
    """Answer with this HTTP status: 401, 403, 404, 429, 500, 503...; *error_code* is the hub's X-Error-Code."""

    status: int
    error_code: str | None = None
    retry_after_s: int | None = None


Fault = Reset | Cut | Stall | Slow | WrongBytes | Truncated | Earlier | Later | OnlyTheRest | Expired | Status
