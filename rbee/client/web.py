"""Import httpx without its command line, whose three libraries are slow to import, and with its late imports."""

from __future__ import annotations

import sys
from importlib import import_module

# None makes the import fail (see the import system's reference), and httpx tolerates that.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

import httpx  # noqa: E402

# httpx would import these during its first request, for which a cold start waits; at this point the queen only
# waits for its hive.
for _name in ("httpcore", "anyio.lowlevel", "anyio.streams.memory", "anyio.streams.stapled", "anyio.streams.tls"):
    import_module(_name)

__all__ = ["httpx"]
