"""httpx without its command line, whose three libraries would be a fifth of a queen's import time."""

from __future__ import annotations

import sys

# None makes an import fail (the import system's reference), and httpx goes on without what cannot be imported.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

# What httpx would import amid the first request: a cold start has time for it now and none then.
import anyio.streams.stapled
import anyio.streams.tls
import httpcore
import httpx  # noqa: E402
from anyio import connect_tcp

__all__ = ["httpx"]
