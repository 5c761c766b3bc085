"""Notice that a client leaves before its answer is whole, and end the work for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from starlette.types import Receive


async def wait_for_disconnect(receive: Receive) -> None:
    """Wait until the client leaves; what is left of the request's body is dropped."""
    while (await receive())["type"] != "http.disconnect":
        pass


@contextlib.asynccontextmanager
async def cancel_on_disconnect(receive: Receive, cancel: Callable[[], object]) -> AsyncIterator[None]:
    """Call *cancel* when the client leaves while the block runs, or when the block ends with an exception."""

    async def watch() -> None:
        await wait_for_disconnect(receive)
        cancel()

    watching = asyncio.ensure_future(watch())
    try:
        yield
    except BaseException:
        cancel()
        raise
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
