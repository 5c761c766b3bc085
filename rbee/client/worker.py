"""A hive's and a queen's view of a worker's HTTP routes; the token stream itself goes through the queen's relay."""

from __future__ import annotations

from collections.abc import AsyncIterator

from rbee.client.base import WAITING_TIMEOUT, AsyncDaemonClient
from rbee.client.events import aevents
from rbee.contracts.models import LoadingProgress
from rbee.contracts.workers import ReadyStatus, SlotsStatus, WorkerHealth


class WorkerClient:
    """Ask one worker. Every method raises RbeeError, see `client.base`."""

    def __init__(self, worker_id: str, url: str, key: str) -> None:
        self.worker_id = worker_id
        self.url = url
        self._daemon = AsyncDaemonClient(f"worker {worker_id}", url, key)

    async def close(self) -> None:
        """Close the connections."""
        await self._daemon.close()

    async def health(self) -> WorkerHealth:
        """Ask how it is."""
        return WorkerHealth.model_validate(await self._daemon.json("GET", "/v1/health"))

    async def ready(self) -> ReadyStatus:
        """Ask whether its model is loaded."""
        return ReadyStatus.model_validate(await self._daemon.json("GET", "/v1/ready"))

    async def slots(self) -> SlotsStatus:
        """Ask for its slots."""
        return SlotsStatus.model_validate(await self._daemon.json("GET", "/v1/slots"))

    async def loading(self) -> AsyncIterator[LoadingProgress]:
        """Follow the loading of its model to the end."""
        async with self._daemon.stream("GET", "/v1/loading/progress", patience=WAITING_TIMEOUT) as response:
            async for event in aevents(response):
                yield LoadingProgress.model_validate(event.data)

    async def cancel(self, request_id: str) -> None:
        """Stop a generation; a request that is not there any more is fine."""
        await self._daemon.json("DELETE", f"/v1/inference/{request_id}")

    async def shutdown(self) -> None:
        """Ask it to finish and end."""
        await self._daemon.json("POST", "/v1/admin/shutdown", patience=WAITING_TIMEOUT)
