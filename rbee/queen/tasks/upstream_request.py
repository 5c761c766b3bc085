"""Build the request that a worker is sent for a task, and the one that placement is asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json, to_json

from rbee.contracts.devices import Backend
from rbee.contracts.ids import CLIENT_HEADER, ROUTED_HEADER
from rbee.contracts.tasks import Deadline, Priority, TaskRequest
from rbee.daemonkit.dialects import COMPAT_ROUTES, Dialect
from rbee.queen.scheduling.prefix_index import PrefixHashes, prefix_hashes
from rbee.queen.scheduling.request import PlacementRequest
from rbee.queen.tasks.presets import TASKS, with_defaults

if TYPE_CHECKING:
    from rbee.contracts.served import Preset, ServedModel
    from rbee.queen.serving.declarations import Alternative
    from rbee.queen.tasks.fallback import Fallbacks

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

    `name` is what its client calls the model, `model` is a reference, `prefix_hashes` are those of its prompt. Without
    `may_fetch` the model must be there. `served` is the declared model that its client means, `fallbacks` are those to
    try in its place, `unloads` is the name of one that is to be unloaded instead. With `rewritten` the body is not as
    the client sent it.
    """

    name: str
    model: str
    path: str
    body: bytes
    stream: bool
    options: RoutingOptions
    prefix_hashes: PrefixHashes = ()
    may_fetch: bool = True
    served: ServedModel | None = None
    fallbacks: Fallbacks | None = None
    unloads: str | None = None
    rewritten: bool = False


def is_stream(path: str, *, stated: bool | None) -> bool:
    """Return whether the answer to a request is a stream, which may be *stated* in it."""
    by_default = _STREAMS[path]
    return by_default is not None and (by_default if stated is None else stated)


def with_preset(request: CompatRequest, fields: Mapping[str, Any], preset: Preset | None) -> CompatRequest:
    """Return *request*, whose body has these fields, with the defaults of *preset* in its body and its prompt."""
    changed = fields if preset is None else with_defaults(request.path, fields, preset)
    hashes = prefix_hashes(changed)
    if changed is fields:
        return replace(request, prefix_hashes=hashes)
    return replace(request, body=_encode(changed), prefix_hashes=hashes, rewritten=True)


def to_alternative(request: CompatRequest, alternative: Alternative) -> CompatRequest:
    """Return *request*, whose body is as its client sent it, as it is made to another model."""
    fields = {**from_json(request.body), "model": alternative.name}
    addressed = replace(
        request, model=alternative.model.model, body=_encode(fields), may_fetch=True, served=alternative.model
    )
    return with_preset(addressed, fields, alternative.preset)


def task_with_preset(request: TaskRequest, preset: Preset | None) -> TaskRequest:
    """Return *request* with the defaults of *preset* where the client has not said them."""
    if preset is None:
        return request
    return TaskRequest.model_validate(with_defaults(TASKS, request.model_dump(exclude_unset=True), preset))


def task_to_alternative(request: TaskRequest, alternative: Alternative) -> TaskRequest:
    """Return *request*, which is as its client sent it, as it is made to another model."""
    return task_with_preset(request, alternative.preset).model_copy(update={"model": alternative.model.model})


def _encode(fields: Mapping[str, Any]) -> bytes:
    return to_json(fields, inf_nan_mode="constants")


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """One request to a worker. An answer that is no `stream` comes whole."""

    path: str
    body: bytes
    dialect: Dialect = Dialect.OWN
    stream: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


def placement_request(
    request: TaskRequest | CompatRequest,
    client_id: str,
    *,
    may_fetch: bool = True,
    served: ServedModel | None = None,
) -> PlacementRequest:
    """Return what placement is asked for *request* of the client with this id.

    Without *may_fetch* the model must be there already; *served* is the declared model that it means.
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
        served=served,
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
