"""Pass one trace id through every hop of a client's request, as W3C Trace Context."""

from __future__ import annotations

import contextvars
import re
import secrets
from typing import Final

HEADER: Final = "traceparent"
trace_id: Final[contextvars.ContextVar[str | None]] = contextvars.ContextVar("trace_id", default=None)
_FORM: Final = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


def extract(header: bytes | None) -> str:
    """Return the trace id of a header, or a new one if it has none."""
    match = _FORM.fullmatch(header) if header is not None else None
    return match[1].decode() if match else secrets.token_hex(16)


def inject() -> dict[str, str]:
    """Return the header for a request of the current trace; empty without one."""
    current = trace_id.get()
    return {} if current is None else {HEADER: f"00-{current}-{secrets.token_hex(8)}-01"}
