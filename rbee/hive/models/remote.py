"""Describe files to download, and the two ways in which a download fails.

A temporary failure (`BrokenTransferError`) is retried; a permanent one is an RbeeError.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final

from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

MAX_RETRY_AFTER_S: Final = 300.0
_SIGNED_HINT: Final = "A signed address is good for a time only: name a fresh one."
_PLAIN_HINT: Final = "Name an address that needs no login; what is on the hub: hf:org/repo"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file to download into `path`, relative to the models folder; size and sha256 where they are known before.

    `on_hub` says that its address is the hub's, which takes HF_TOKEN.
    """

    url: str = field(repr=False)
    path: str
    size: int | None = None
    sha256: str | None = None
    on_hub: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class BrokenTransferError(Exception):
    """Raised when a transfer failed temporarily; `retry_after_s` is what the server asked for."""

    def __init__(self, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


def http_error(
    status: int, what: str, retry_after: str | None, *, signed: bool = False, on_hub: bool = False
) -> RbeeError | BrokenTransferError:
    """Return the error for an HTTP status other than success.

    Args:
        signed: the address has a query, which may be a signature.
        on_hub: it is the hub that answers, which takes HF_TOKEN.
    """
    if status in (401, 403):
        why = "it is gated or private, or there is no such model" if on_hub else "its server does not give it to us"
        return RbeeError(
            ErrorCode.MODEL_ACCESS_DENIED,
            f"{what} was refused (HTTP {status}): {why}.",
            details={"status": status},
            hint=None if on_hub else _SIGNED_HINT if signed else _PLAIN_HINT,
        )
    if status in (404, 410):
        return RbeeError(
            ErrorCode.MODEL_NOT_FOUND,
            f"{what} was not found (HTTP {status}).",
            details={"status": status},
            hint="Check the spelling of the reference.",
        )
    if status in (408, 425, 429) or status >= 500:
        return BrokenTransferError(f"the server answered HTTP {status}", parse_retry_after(retry_after))
    return RbeeError(ErrorCode.DOWNLOAD_FAILED, f"{what} was refused with HTTP {status}.", details={"status": status})


def parse_retry_after(retry_after: str | None) -> float | None:
    """Read Retry-After, seconds or a date, as seconds from now within bounds; None without a valid one."""
    if retry_after is None:
        return None
    try:
        seconds = float(int(retry_after))
    except (ValueError, OverflowError):
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)
