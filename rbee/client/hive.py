"""The client of a hive's HTTP routes, for the queen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from rbee.client.base import WAITING_TIMEOUT, AsyncDaemonClient, OnRetry
from rbee.client.events import read_events
from rbee.client.retry import GRACEFUL_STOP_S
from rbee.contracts.devices import DeviceSelection, YieldRequest
from rbee.contracts.hives import HiveHealth, ResumeReceipt, ShutdownReceipt, YieldReceipt
from rbee.contracts.models import DownloadProgress, ModelDetails, Neighbour
from rbee.contracts.queen import LogLine, ModelList
from rbee.contracts.workers import SpawnRequest, WorkerAccess, WorkerEstimate, WorkerStopReceipt


class HiveClient:
    """A client of one hive. Every method raises RbeeError, see `client.base`."""

    def __init__(self, node: str, url: str, key: str | None) -> None:
        self.node = node
        self.url = url
        self._daemon = AsyncDaemonClient(f"the hive on {node}", url, key)

    async def close(self) -> None:
        """Close the connections."""
        await self._daemon.close()

    async def health(self, on_retry: OnRetry | None = None) -> HiveHealth:
        """Return its health and version."""
        return HiveHealth.model_validate(await self._daemon.json("GET", "/v1/health", on_retry=on_retry))

    async def download(
        self, model: str, neighbours: Sequence[Neighbour] = (), on_retry: OnRetry | None = None
    ) -> DownloadProgress:
        """Start the download of a model unless it is there; the stage of the response says which.

        With *neighbours* it is copied from them only, without them fetched from its origin.
        """
        body: dict[str, Any] = {"model": model}
        if neighbours:
            body |= {"neighbours": [each.model_dump() for each in neighbours], "origin": False}
        answer = await self._daemon.json("POST", "/v1/models/download", body=body, on_retry=on_retry)
        return DownloadProgress.model_validate(answer)

    async def download_progress(self, model: str) -> AsyncIterator[DownloadProgress]:
        """Yield the progress of a download to its end."""
        async with self._daemon.stream("GET", "/v1/models/download/progress", params={"model": model}) as response:
            async for event in read_events(response):
                yield DownloadProgress.model_validate(event.data)

    async def cancel_download(self, model: str) -> None:
        """Cancel a download; return when it has ended."""
        await self._daemon.json("DELETE", "/v1/models/download", params={"model": model})

    async def models(self) -> ModelList:
        """Return the catalog, and the downloads that run."""
        return ModelList.model_validate(await self._daemon.json("GET", "/v1/models/list"))

    async def model(self, model_id: str) -> ModelDetails:
        """Return one model by id or reference."""
        return ModelDetails.model_validate(
            await self._daemon.json("GET", "/v1/models/show", params={"model": model_id})
        )

    async def remove_model(self, model_id: str) -> None:
        """Remove a model from the catalog, and its file if the hive downloaded it."""
        await self._daemon.json("DELETE", f"/v1/models/{model_id}")

    async def spawn(self, request: SpawnRequest) -> WorkerAccess:
        """Start a worker; return when its process exists."""
        answer = await self._daemon.json(
            "POST", "/v1/workers/spawn", body=request.model_dump(mode="json"), timeouts=WAITING_TIMEOUT
        )
        return WorkerAccess.model_validate(answer)

    async def estimate(self, request: SpawnRequest) -> WorkerEstimate:
        """Return what a worker would take of memory; its model must be in the hive's catalog."""
        answer = await self._daemon.json("POST", "/v1/workers/estimate", body=request.model_dump(mode="json"))
        return WorkerEstimate.model_validate(answer)

    async def stop(self, worker_id: str) -> WorkerStopReceipt:
        """Stop a worker; return when it has exited."""
        answer = await self._daemon.json("POST", f"/v1/workers/{worker_id}/shutdown", timeouts=stop_timeout())
        return WorkerStopReceipt.model_validate(answer)

    async def yield_devices(self, request: YieldRequest) -> YieldReceipt:
        """Empty devices for another program; return when their workers have exited."""
        answer = await self._daemon.json(
            "POST", "/v1/devices/yield", body=request.model_dump(mode="json"), timeouts=stop_timeout(request.drain_s)
        )
        return YieldReceipt.model_validate(answer)

    async def resume_devices(self, request: DeviceSelection) -> ResumeReceipt:
        """Use devices again that were yielded."""
        answer = await self._daemon.json("POST", "/v1/devices/resume", body=request.model_dump(mode="json"))
        return ResumeReceipt.model_validate(answer)

    async def shutdown(self) -> ShutdownReceipt:
        """Stop the hive; return when its workers have exited."""
        answer = await self._daemon.json("POST", "/v1/admin/shutdown", timeouts=stop_timeout())
        return ShutdownReceipt.model_validate(answer)

    async def logs(self, *, follow: bool, lines: int) -> AsyncIterator[LogLine]:
        """Yield the logs of the hive and its workers; with *follow* without an end."""
        params: dict[str, Any] = {"follow": str(follow).lower(), "lines": lines}
        async with self._daemon.stream("GET", "/v1/logs", params=params, timeouts=WAITING_TIMEOUT) as response:
            async for event in read_events(response):
                yield LogLine.model_validate(event.data)


def stop_timeout(drain_s: float | None = None) -> Any:
    """Return the time that a graceful stop may take, *drain_s* if that is said, with a margin for the kill after it."""
    from rbee.client.web import httpx

    return httpx.Timeout((GRACEFUL_STOP_S if drain_s is None else drain_s) + 25, connect=5)
