"""The keeper's view of the queen's routes.

Lists come back as the JSON they are: a command that prints a table must start fast, and pydantic's import would
cost it more than the request does. Their fields are those of `contracts.queen`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rbee.client.blocking import BlockingClient
from rbee.client.event import Event
from rbee.client.retry import CONTROL_TIMEOUT_S, HTTP_CONNECT, NO_TOKEN_TIMEOUT_S, Retries
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

Json = dict[str, Any]

# Streams are pinged every 15 s, and the queen gives up on a worker first: whoever is silent for longer is stuck.
CANCEL_ACK_S: Final = 5.0
STREAM_SILENCE_S: Final = 2 * NO_TOKEN_TIMEOUT_S
_ABSENT: Final = "Start one: rbee-keeper daemon start (infer starts one by itself)."


class QueenClient:
    """Ask the queen. Every method raises RbeeError, see `client.base`."""

    def __init__(self, url: str, key: str | None, *, retries: Retries = HTTP_CONNECT) -> None:
        self.url = url
        self._daemon = BlockingClient("the queen", url, key, retries=retries, absent_hint=_ABSENT)

    def health(self, *, patience_s: float = CONTROL_TIMEOUT_S) -> Json:
        """Ask whether it lives (`QueenHealth`); needs no key."""
        return self._object("GET", "/health", patience_s=patience_s)

    def status(self) -> Json:
        """Ask how it is (`QueenStatus`)."""
        return self._object("GET", "/v2/status")

    def nodes(self) -> list[Json]:
        """List the node registry (`NodeInfo`)."""
        return self._list("/v2/registry/beehives/list", "beehives")

    def add_node(self, spec: Json) -> Json:
        """Register a node (`NodeSpec`)."""
        return self._object("POST", "/v2/registry/beehives/add", body=spec)

    def remove_node(self, node: str) -> None:
        """Forget a node."""
        self._daemon.json("POST", "/v2/registry/beehives/remove", body={"node_name": node})

    def add_key(self, name: str) -> Json:
        """Make a key for a client (`ClientKey`)."""
        return self._object("POST", "/v2/keys/add", body={"name": name})

    def clients(self) -> list[Json]:
        """List the clients that have a key (`ClientName`)."""
        return self._list("/v2/keys/list", "clients")

    def remove_key(self, name: str) -> None:
        """Take a client's key back."""
        self._daemon.json("POST", "/v2/keys/remove", body={"name": name})

    def hives(self) -> list[Json]:
        """List the hives as the queen knows them (`HiveInfo`)."""
        return self._list("/v2/hives/list", "hives")

    def workers(self, node: str | None = None) -> list[Json]:
        """List workers (`WorkerInfo`)."""
        return self._list("/v2/workers/list", "workers", {"node": node})

    def workers_and_quarantined(self, node: str | None = None) -> tuple[list[Json], list[Json]]:
        """List workers, and the models and devices that are not used for now (`NodeQuarantine`)."""
        answer = self._object("GET", "/v2/workers/list", params={"node": node})
        rows, quarantined = answer.get("workers"), answer.get("quarantined", [])
        if not isinstance(rows, list) or not isinstance(quarantined, list):
            raise self._foreign("/v2/workers/list")
        return rows, quarantined

    def workers_health(self, node: str | None = None) -> list[Json]:
        """Ask every worker how it is (`WorkerHealthRow`)."""
        return self._list("/v2/workers/health", "workers", {"node": node})

    def stop_worker(self, worker_id: str) -> Json:
        """Stop a worker (`WorkerStopReceipt`)."""
        return self._object("POST", "/v2/workers/shutdown", body={"worker_id": worker_id}, patience_s=None)

    def models(self, node: str) -> list[Json]:
        """List a node's catalogue (`CatalogEntry`)."""
        return self._list("/v2/models/list", "models", {"node": node})

    def model(self, node: str, model: str) -> Json:
        """Show one model (`ModelDetails`), by id or reference."""
        return self._object("GET", "/v2/models/show", params={"node": node, "model": model})

    def remove_model(self, node: str, model: str) -> None:
        """Remove a model from a node, by id or reference."""
        self._daemon.json("DELETE", "/v2/models", params={"node": node, "model": model})

    def cancel(self, task_id: str) -> None:
        """Cancel a task and wait for the acknowledgement; one that has ended is fine."""
        self._daemon.json("DELETE", f"/v2/tasks/{task_id}", patience_s=CANCEL_ACK_S)

    def shutdown(self, *, when_idle: bool, hives: list[str] | None = None, patience_s: float | None = None) -> Json:
        """End the queen and all that is hers (`CascadeReceipt`); answered when they are gone.

        *hives* are the other machines whose hives end with her, None for all.
        """
        body = {"when_idle": when_idle, **({} if hives is None else {"hives": hives})}
        return self._object("POST", "/v1/admin/shutdown", body=body, patience_s=patience_s)

    @contextmanager
    def task(self, request: Json) -> Iterator[Iterator[Event]]:
        """Run an inference (`TaskRequest`); gives its events."""
        with self._daemon.stream("POST", "/v2/tasks", body=request, silence_s=STREAM_SILENCE_S) as events:
            yield events

    @contextmanager
    def spawn(self, request: Json) -> Iterator[Iterator[Event]]:
        """Start a worker (`SpawnTask`); gives the events up to `WorkerSpawned`."""
        with self._daemon.stream("POST", "/v2/workers/spawn", body=request, silence_s=STREAM_SILENCE_S) as events:
            yield events

    @contextmanager
    def download(self, node: str, model: str) -> Iterator[Iterator[Event]]:
        """Fetch a model to a node; gives the progress events."""
        body = {"node": node, "model": model}
        with self._daemon.stream("POST", "/v2/models/download", body=body, silence_s=STREAM_SILENCE_S) as events:
            yield events

    @contextmanager
    def logs(self, node: str, *, follow: bool, lines: int) -> Iterator[Iterator[Event]]:
        """Read a node's logs (`LogLine`); with *follow* without an end."""
        params = {"node": node, "follow": str(follow).lower(), "lines": lines}
        with self._daemon.stream("GET", "/v2/logs", params=params, silence_s=None) as events:
            yield events

    def _object(self, method: str, path: str, **options: Any) -> Json:
        value = self._daemon.json(method, path, **options)
        if not isinstance(value, dict):
            raise self._foreign(path)
        return value

    def _list(self, path: str, key: str, params: Json | None = None) -> list[Json]:
        rows = self._object("GET", path, params=params).get(key)
        if not isinstance(rows, list):
            raise self._foreign(path)
        return rows

    def _foreign(self, path: str) -> RbeeError:
        return RbeeError(
            ErrorCode.INVALID_RESPONSE, f"{self.url}{path} does not answer as a queen does.", details={"url": self.url}
        )
