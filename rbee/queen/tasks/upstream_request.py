"""Build the request that a worker is sent for a task, and the one that placement is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from rbee.contracts.devices import Backend
from rbee.contracts.ids import CLIENT_HEADER, ROUTED_HEADER
from rbee.contracts.tasks import Deadline, Priority, TaskRequest
from rbee.daemonkit.dialects import COMPAT_ROUTES, Dialect
from rbee.queen.scheduling.placement import PlacementRequest
from rbee.queen.scheduling.prefix_index import PrefixHashes, prefix_hashes

DIALECTS: Final = {route.path: route.dialect for route in COMPAT_ROUTES}
_STREAMS: Final = {route.path: route.streams for route in COMPAT_ROUTES}


class RoutingOptions(BaseModel):
    """What an OpenAI- or Anthropic-compatible client says in headers: where its request may run, and by when."""

    model_config = ConfigDict(frozen=True)

    node: str | None = Field(default=None, max_length=253)
    backend: Backend | None = None
    device: int | None = Field(default=None, ge=0)
    priority: Priority = 0
    deadline_s: Deadline | None = None


@dataclass(frozen=True, slots=True)
class CompatRequest:
    """A request of an OpenAI- or Anthropic-compatible client; its body is for the worker to read.

    `model` is a reference, `prefix_hashes` are those of its prompt. Without `may_fetch` the model must be there.
    `unloads` is the name of a model that is to be unloaded instead.
    """

    model: str
    path: str
    body: bytes
    stream: bool
    prefix_hashes: PrefixHashes
    options: RoutingOptions
    may_fetch: bool = True
    unloads: str | None = None


def is_stream(path: str, *, stated: bool | None) -> bool:
    """Return whether the answer to a request is a stream, which may be *stated* in it."""
    by_default = _STREAMS[path]
    return by_default is not None and (by_default if stated is None else stated)


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request to a worker. An answer that is no `stream` comes whole."""

    path: str
    body: bytes
    dialect: Dialect = Dialect.OWN
    stream: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


def placement_request(
    request: TaskRequest | CompatRequest, client_id: str, *, may_fetch: bool = True
) -> PlacementRequest:
    """Return what placement is asked for *request* of the client with this id.

    Without *may_fetch* the model must be there already.
    """
    options: RoutingOptions | TaskRequest
    if isinstance(request, CompatRequest):
        options, hashes = request.options, request.prefix_hashes
    else:
        options, hashes = request, prefix_hashes(request.inference())
    return PlacementRequest(
        request.model,
        options.node,
        options.backend,
        options.device,
        prefix_hashes=hashes,
        client=client_id,
        may_fetch=may_fetch,
    )


def build_upstream_request(request: TaskRequest | CompatRequest, task_id: str, client_id: str) -> UpstreamRequest:
    """Build what a worker is sent for *request* of the client with this id."""
    headers = {CLIENT_HEADER: client_id}
    if isinstance(request, TaskRequest):
        body = json.dumps({**request.inference(), "request_id": task_id}).encode()
        return UpstreamRequest("/v1/inference", body, headers=headers)
    # A header cannot carry every name; the worker only looks whether it is there.
    name = request.model.encode("ascii", "replace").decode()
    return UpstreamRequest(
        request.path, request.body, DIALECTS[request.path], request.stream, {ROUTED_HEADER: name, **headers}
    )
