"""The client of a worker's HTTP routes, for hive and queen; the relay of the queen reads the token streams."""

from __future__ import annotations

from collections.abc import AsyncIterator

from rbee.client.base import WAITING_TIMEOUT, AsyncDaemonClient
from rbee.client.events import read_events
from rbee.contracts.models import LoadingProgress
from rbee.contracts.workers import ReadyStatus, SlotsStatus, WorkerHealth


class WorkerClient:
    """A client of one worker. Every method raises RbeeError, see `client.base`."""

    def __init__(self, worker_id: str, url: str, key: str) -> None:
        self.worker_id = worker_id
        self.url = url
        self._daemon = AsyncDaemonClient(f"worker {worker_id}", url, key)

    async def close(self) -> None:
        """Close the connections."""
        await self._daemon.close()

    async def health(self) -> WorkerHealth:
        """Return its health."""
        return WorkerHealth.model_validate(await self._daemon.json("GET", "/v1/health"))

    async def ready(self) -> ReadyStatus:
        """Return whether its model is loaded."""
        return ReadyStatus.model_validate(await self._daemon.json("GET", "/v1/ready"))

    async def slots(self) -> SlotsStatus:
        """Return its slots."""
        return SlotsStatus.model_validate(await self._daemon.json("GET", "/v1/slots"))

    async def loading(self) -> AsyncIterator[LoadingProgress]:
        """Yield the progress of loading its model to the end."""
        async with self._daemon.stream("GET", "/v1/loading/progress", timeouts=WAITING_TIMEOUT) as response:
            async for event in read_events(response):
                yield LoadingProgress.model_validate(event.data)

    async def cancel(self, request_id: str) -> None:
        """Cancel a generation; one that has ended is not an error."""
        await self._daemon.json("DELETE", f"/v1/inference/{request_id}")

    async def shutdown(self, drain_s: float) -> None:
        """Shut it down; return when its requests have finished, which may take *drain_s* seconds."""
        await self._daemon.json("POST", "/v1/admin/shutdown", body={"drain_s": drain_s}, timeouts=WAITING_TIMEOUT)
