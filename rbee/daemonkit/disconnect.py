"""Detect that a client disconnects before its response is complete, and cancel its work."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from starlette.types import Receive


async def wait_for_disconnect(receive: Receive) -> None:
    """Wait until the client disconnects; the rest of the request's body is discarded."""
    while (await receive())["type"] != "http.disconnect":
        pass


@contextlib.asynccontextmanager
async def cancel_on_disconnect(receive: Receive, cancel: Callable[[], object]) -> AsyncIterator[None]:
    """Call *cancel* if the client disconnects while the block runs, or if the block raises."""

    async def watch() -> None:
        await wait_for_disconnect(receive)
        cancel()

    watcher = asyncio.ensure_future(watch())
    try:
        yield
    except BaseException:
        cancel()
        raise
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
