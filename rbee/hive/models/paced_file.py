"""Send a file of a model piece by piece, at the pace that this hive keeps."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from rbee.daemonkit.disconnect import wait_for_disconnect
from rbee.daemonkit.http1 import abort
from rbee.hive.models.sharing import SharedFile, Sharing
from rbee.observe import metrics

_CHUNK_BYTES: Final = 1024 * 1024
# Of several transfers that share a rate each gets a piece often enough not to be taken for broken.
_PACED_CHUNK_BYTES: Final = 64 * 1024
_STALL_S: Final = 60.0


class PacedFile(FileResponse):
    """A response that reads a file piece by piece, at the pace of *sharing*, until *until* is set."""

    def __init__(self, shared: SharedFile, sharing: Sharing, *, until: asyncio.Event) -> None:
        super().__init__(
            shared.path,
            headers={"ETag": f'"{shared.sha256}"'},
            media_type="application/octet-stream",
            stat_result=shared.stat,
        )
        self.chunk_size = _PACED_CHUNK_BYTES if sharing.bounded else _CHUNK_BYTES
        self._sharing = sharing
        self._until = until

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end of the file, the client's leaving or the hive's; who takes nothing is left."""

        async def paced(message: Message) -> None:
            size = len(message.get("body", b""))
            await self._sharing.pace(size)
            async with asyncio.timeout(_STALL_S):
                await send(message)
            metrics.HIVE_SHARED.add(size)

        with self._sharing.sending():
            sending = asyncio.ensure_future(super().__call__(scope, receive, paced))
            ending = asyncio.ensure_future(self._until.wait())
            waits: set[asyncio.Future[Any]] = {sending, ending}
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waits:
                    task.cancel()
                await asyncio.gather(*waits, return_exceptions=True)
        if sending.cancelled() or isinstance(sending.exception(), TimeoutError):
            abort(scope)
            await wait_for_disconnect(receive)
        else:
            sending.result()
