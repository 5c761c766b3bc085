"""What a task has a worker do: one request of the worker's own routes, and how its answer is told from a broken one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from rbee.contracts.devices import Backend
from rbee.contracts.ids import ROUTED_HEADER
from rbee.contracts.tasks import TaskRequest
from rbee.contracts.workers import ModelText
from rbee.daemonkit.dialects import Dialect

DIALECTS: Final = {
    "/v1/chat/completions": Dialect.OPENAI,
    "/v1/completions": Dialect.OPENAI,
    "/v1/embeddings": Dialect.OPENAI,
    "/v1/rerank": Dialect.OPENAI,
    "/v1/responses": Dialect.RESPONSES,
    "/v1/messages": Dialect.ANTHROPIC,
    "/v1/messages/count_tokens": Dialect.ANTHROPIC,
}


class EdgeRequest(BaseModel):
    """A request of another people's client, for the worker to read: the queen looks only at what she needs."""

    model_config = ConfigDict(protected_namespaces=())

    model: ModelText
    path: str
    body: bytes
    stream: bool
    node: str | None = Field(default=None, max_length=253)
    backend: Backend | None = None
    device: int | None = Field(default=None, ge=0)
    priority: int = Field(default=0, ge=-10, le=10)
    deadline_s: float | None = Field(default=None, gt=0, le=86_400)


@dataclass(frozen=True, slots=True)
class Errand:
    """One request to a worker: a `wish` in our own words or a `foreign` body. What is no `stream` comes whole."""

    path: str
    wish: Mapping[str, Any] | None = None
    foreign: bytes = b""
    dialect: Dialect = Dialect.OWN
    stream: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self, request_id: str, left_s: float | None) -> bytes:
        """Give the body; *left_s* is the time until nobody is interested in the answer any more."""
        if self.wish is None:
            return self.foreign
        wish = {**self.wish, "request_id": request_id}
        return json.dumps(wish if left_s is None else {**wish, "deadline_s": left_s}).encode()


def errand_of(request: TaskRequest | EdgeRequest) -> Errand:
    """Give what a worker is asked for *request*."""
    if isinstance(request, TaskRequest):
        return Errand("/v1/inference", request.inference())
    # A header cannot carry every name; the worker only looks whether it is there.
    name = request.model.encode("ascii", "replace").decode()
    headers = {ROUTED_HEADER: name}
    return Errand(request.path, None, request.body, DIALECTS[request.path], request.stream, headers)
