"""httpx, with what it imports late, and without its command line, whose three libraries take long to import."""

from __future__ import annotations

import sys
from importlib import import_module

# None makes an import fail (the import system's reference), and httpx goes on without what cannot be imported.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

import httpx  # noqa: E402

# It would import these amid its first request, for which a cold start waits; before, a queen only waits for her hive.
for _name in ("httpcore", "anyio.lowlevel", "anyio.streams.memory", "anyio.streams.stapled", "anyio.streams.tls"):
    import_module(_name)

__all__ = ["httpx"]
