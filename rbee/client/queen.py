"""The client of the queen's routes, for the keeper.

Lists are returned as plain JSON: a command that prints a table must start fast, and importing pydantic would cost
more than the request. Their fields are those of `contracts.queen`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import quote

from rbee.client.blocking import BlockingClient
from rbee.client.event import Event
from rbee.client.retry import CONTROL_TIMEOUT_S, HTTP_CONNECT, NO_TOKEN_TIMEOUT_S, Retries
from rbee.contracts.errors import ErrorCode
from rbee.errors import RbeeError

Json = dict[str, Any]

# A stream has a ping every 15 s, and the queen times out a worker first: a queen that is silent for longer is stuck.
CANCEL_ACK_S: Final = 5.0
STREAM_SILENCE_S: Final = 2 * NO_TOKEN_TIMEOUT_S
EVENTS_SILENCE_S: Final = 45.0
# Before it gives up a hive, the queen waits for its start, or tries to connect four times; then it says which hive.
_ASKED_OF_HIVE_S: Final = 45.0
# A page takes the queen some milliseconds, in which it does nothing else; a hive's row has its models and workers.
ROWS_A_PAGE: Final = 500
HIVES_A_PAGE: Final = 25
NODES_AT_ONCE: Final = 1000
_ABSENT: Final = "Start one: rbee-keeper daemon start (infer starts one by itself)."


class QueenClient:
    """A client of the queen. Every method raises RbeeError, see `client.base`."""

    def __init__(self, url: str, key: str | None, *, retries: Retries = HTTP_CONNECT) -> None:
        self.url = url
        self._daemon = BlockingClient("the queen", url, key, retries=retries, absent_hint=_ABSENT)

    def health(self, *, timeout_s: float = CONTROL_TIMEOUT_S) -> Json:
        """Return its health (`QueenHealth`); needs no key."""
        return self._object("GET", "/health", timeout_s=timeout_s)

    def status(self) -> Json:
        """Return its status (`QueenStatus`)."""
        return self._object("GET", "/v2/status")

    def is_draining(self) -> bool:
        """Return whether it is stopping; one that does not say is, or soon will be gone."""
        try:
            return bool(self.status().get("draining", True))
        except RbeeError:
            return True

    def nodes(self) -> list[Json]:
        """Return the node registry (`NodeInfo`)."""
        return self._pages("/v2/registry/beehives/list", "beehives", ROWS_A_PAGE)["beehives"]

    def add_node(self, spec: Json) -> Json:
        """Register a node (`NodeSpec`)."""
        return self._object("POST", "/v2/registry/beehives/add", body=spec)

    def add_nodes(self, specs: list[Json]) -> None:
        """Register several nodes (`NodeSpecs`), all or none of each thousand."""
        for begin in range(0, len(specs), NODES_AT_ONCE):
            self._object("POST", "/v2/registry/beehives/add-many", body={"nodes": specs[begin : begin + NODES_AT_ONCE]})

    def remove_node(self, node: str) -> None:
        """Remove a node from the registry."""
        self._daemon.json("POST", "/v2/registry/beehives/remove", body={"node_name": node})

    def add_key(self, spec: Json) -> Json:
        """Create a key for a client (`KeySpec`, `KeyCreated`)."""
        return self._object("POST", "/v2/keys/add", body=spec)

    def change_key(self, change: Json) -> Json:
        """Change what a client's key allows (`KeyChange`, `KeyInfo`)."""
        return self._object("POST", "/v2/keys/set", body=change)

    def keys(self) -> list[Json]:
        """Return the keys of clients (`KeyInfo`)."""
        return self._list("/v2/keys/list", "keys")

    def remove_key(self, name: str) -> None:
        """Revoke a client's key."""
        self._daemon.json("POST", "/v2/keys/remove", body={"name": name})

    def usage(self, query: Json) -> Json:
        """Return what clients have used (`UsageQuery`, `UsageReport` with all its pages)."""
        rows: list[Json] = []
        after: str | None = None
        while True:
            page = self._object("GET", "/v2/usage", params={**query, "after": after})
            before, after = after, page.get("next")
            if not isinstance(page.get("rows"), list) or (after is not None and after == before):
                raise self._invalid_response("/v2/usage")
            rows += page["rows"]
            if after is None:
                return {"rows": rows, "total": page.get("total")}

    def hives(self, node: str | None = None) -> list[Json]:
        """Return the hives (`HiveInfo`), or that of one node."""
        return self._pages("/v2/hives/list", "hives", HIVES_A_PAGE, {"node": node})["hives"]

    def yield_devices(self, request: Json) -> Json:
        """Empty devices of a node for another program (`NodeYield`, `YieldReceipt`); return when they are empty."""
        return self._object("POST", "/v2/hives/yield", body=request, timeout_s=None)

    def resume_devices(self, request: Json) -> Json:
        """Use devices of a node again (`NodeResume`, `ResumeReceipt`)."""
        return self._object("POST", "/v2/hives/resume", body=request, timeout_s=_ASKED_OF_HIVE_S)

    def workers(self, node: str | None = None) -> list[Json]:
        """Return the workers (`WorkerInfo`)."""
        return self.worker_list(node)["workers"]

    def worker_list(self, node: str | None = None) -> dict[str, list[Json]]:
        """Return the workers, what is in quarantine, and the hives that do not answer (`FleetWorkerList`)."""
        lists = self._pages("/v2/workers/list", "workers", ROWS_A_PAGE, {"node": node})
        return {"quarantined": [], "unreachable": [], **lists}

    def workers_health(self, node: str | None = None) -> list[Json]:
        """Return the health of every worker (`WorkerHealthRow`)."""
        return self._list("/v2/workers/health", "workers", {"node": node})

    def stop_worker(self, worker_id: str) -> Json:
        """Stop a worker (`WorkerStopReceipt`)."""
        return self._object("POST", "/v2/workers/shutdown", body={"worker_id": worker_id}, timeout_s=None)

    def model_list(self, nodes: Sequence[str] = ()) -> dict[str, list[Json]]:
        """Return the models of nodes, their downloads, and the hives that do not answer (`FleetModelList`)."""
        answer = self._object("GET", "/v2/models/list", params={"node": list(nodes)}, timeout_s=_ASKED_OF_HIVE_S)
        lists = {name: answer.get(name, []) for name in ("downloads", "unreachable")}
        lists = {"models": answer.get("models"), **lists}
        if not all(isinstance(rows, list) for rows in lists.values()):
            raise self._invalid_response("/v2/models/list")
        return lists

    def explain(self, model: str) -> Json:
        """Return what every node and device is for a model (`Explanations`)."""
        return self._object("GET", "/v2/explain", params={"model": model}, timeout_s=_ASKED_OF_HIVE_S)

    def cancel_download(self, node: str, model: str) -> None:
        """Cancel a download on a node; return when it has ended."""
        params = {"node": node, "model": model}
        self._daemon.json("DELETE", "/v2/models/download", params=params, timeout_s=_ASKED_OF_HIVE_S)

    def model(self, node: str, model: str) -> Json:
        """Return one model (`ModelDetails`), by id or reference."""
        params = {"node": node, "model": model}
        return self._object("GET", "/v2/models/show", params=params, timeout_s=_ASKED_OF_HIVE_S)

    def remove_model(self, node: str, model: str) -> None:
        """Remove a model from a node, by id or reference."""
        params = {"node": node, "model": model}
        self._daemon.json("DELETE", "/v2/models", params=params, timeout_s=_ASKED_OF_HIVE_S)

    def served(self) -> Json:
        """Return the declared models (`ServedList`)."""
        answer = self._object("GET", "/v2/served")
        if not isinstance(answer.get("served"), list):
            raise self._invalid_response("/v2/served")
        return answer

    def declare(self, name: str, spec: Json) -> Json:
        """Declare a served model (`ServedSpec`, `ServedInfo`)."""
        return self._object("PUT", f"/v2/served/{quote(name, safe='')}", body=spec)

    def plan(self, put: list[Json], remove: list[str]) -> Json:
        """Return what would be done next if models were declared or removed (`ServedPlan`)."""
        return self._object("POST", "/v2/served/plan", body={"put": put, "remove": remove})

    def remove_declaration(self, name: str) -> None:
        """Remove the declaration of a served model."""
        self._daemon.json("DELETE", f"/v2/served/{quote(name, safe='')}")

    def cancel(self, task_id: str) -> None:
        """Cancel a task and wait for the acknowledgement; one that has ended is not an error."""
        self._daemon.json("DELETE", f"/v2/tasks/{task_id}", timeout_s=CANCEL_ACK_S)

    def shutdown(self, *, when_idle: bool, hives: list[str] | None = None, timeout_s: float | None = None) -> Json:
        """Shut down the queen with its hives and workers (`CascadeReceipt`); return when they have exited.

        *hives* are the other machines whose hives are shut down too, None for all.
        """
        body = {"when_idle": when_idle, **({} if hives is None else {"hives": hives})}
        return self._object("POST", "/v1/admin/shutdown", body=body, timeout_s=timeout_s)

    @contextmanager
    def task(self, request: Json) -> Iterator[Iterator[Event]]:
        """Run an inference (`TaskRequest`) and yield its events."""
        with self._daemon.stream("POST", "/v2/tasks", body=request, idle_timeout_s=STREAM_SILENCE_S) as events:
            yield events

    @contextmanager
    def chat(self, body: Json) -> Iterator[Iterator[Event]]:
        """Run a streamed chat of the OpenAI interface and yield its chunks."""
        with self._daemon.stream("POST", "/v1/chat/completions", body=body, idle_timeout_s=STREAM_SILENCE_S) as events:
            yield (_raising(event) for event in events)

    @contextmanager
    def spawn(self, request: Json) -> Iterator[Iterator[Event]]:
        """Start a worker (`SpawnTask`) and yield the events up to `WorkerSpawned`."""
        with self._daemon.stream("POST", "/v2/workers/spawn", body=request, idle_timeout_s=STREAM_SILENCE_S) as events:
            yield events

    @contextmanager
    def download(self, node: str, model: str) -> Iterator[Iterator[Event]]:
        """Download a model to a node and yield the progress events."""
        body = {"node": node, "model": model}
        with self._daemon.stream("POST", "/v2/models/download", body=body, idle_timeout_s=STREAM_SILENCE_S) as events:
            yield events

    @contextmanager
    def logs(self, node: str, *, follow: bool, lines: int) -> Iterator[Iterator[Event]]:
        """Yield a node's logs (`LogLine`); with *follow* without an end."""
        params = {"node": node, "follow": str(follow).lower(), "lines": lines}
        with self._daemon.stream("GET", "/v2/logs", params=params, idle_timeout_s=None) as events:
            yield events

    @contextmanager
    def events(self) -> Iterator[Iterator[Event]]:
        """Yield what is in the fleet and then each change (`contracts.events`), without an end."""
        with self._daemon.stream("GET", "/v2/events", idle_timeout_s=EVENTS_SILENCE_S) as events:
            yield events

    def console_ticket(self) -> Json:
        """Return a ticket for one session of a browser (`ConsoleTicket`)."""
        return self._object("POST", "/v2/console/tickets")

    def _object(self, method: str, path: str, **options: Any) -> Json:
        value = self._daemon.json(method, path, **options)
        if not isinstance(value, dict):
            raise self._invalid_response(path)
        return value

    def _list(self, path: str, key: str, params: Json | None = None) -> list[Json]:
        rows = self._object("GET", path, params=params).get(key)
        if not isinstance(rows, list):
            raise self._invalid_response(path)
        return rows

    def _pages(self, path: str, key: str, limit: int, params: Json | None = None) -> dict[str, list[Json]]:
        """Return the lists of an answer that comes in pages, each whole; that named *key* must be there."""
        lists: dict[str, list[Json]] = {key: []}
        after: str | None = None
        while True:
            answer = self._object("GET", path, params={**(params or {}), "limit": limit, "after": after})
            before, after = after, answer.pop("next", None)
            if key not in answer or not all(isinstance(rows, list) for rows in answer.values()):
                raise self._invalid_response(path)
            for name, rows in answer.items():
                lists.setdefault(name, []).extend(rows)
            if after is None:
                return lists
            if after == before:
                raise self._invalid_response(path)

    def _invalid_response(self, path: str) -> RbeeError:
        return RbeeError(
            ErrorCode.INVALID_RESPONSE,
            f"{self.url}{path} does not respond in the format of a queen.",
            details={"url": self.url},
        )


def _raising(event: Event) -> Event:
    """Return a chunk. Raises the RbeeError that ends a chat in its place: that interface names no events."""
    if (error := RbeeError.from_body(event.data)) is not None:
        raise error
    return event
