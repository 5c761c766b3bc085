"""What a task has a worker do: one request of the worker's own routes, and how its answer is told from a broken one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from rbee.contracts.devices import Backend
from rbee.contracts.ids import ROUTED_HEADER
from rbee.contracts.tasks import Deadline, Priority, TaskRequest
from rbee.daemonkit.dialects import COMPAT_ROUTES, Dialect
from rbee.queen.placement import Wish
from rbee.queen.prefixes import Marks, marks_of

DIALECTS: Final = {one.path: one.dialect for one in COMPAT_ROUTES}


class Terms(BaseModel):
    """What a client of other people's interfaces says in headers: where its request may run, and when it must."""

    model_config = ConfigDict(frozen=True)

    node: str | None = Field(default=None, max_length=253)
    backend: Backend | None = None
    device: int | None = Field(default=None, ge=0)
    priority: Priority = 0
    deadline_s: Deadline | None = None


@dataclass(frozen=True, slots=True)
class EdgeRequest:
    """A request of another people's client, for the worker to read: the queen looks only at what she needs.

    `model` is a reference, `marks` are those of its prompt.
    """

    model: str
    path: str
    body: bytes
    stream: bool
    marks: Marks
    terms: Terms


@dataclass(frozen=True, slots=True)
class Errand:
    """One request to a worker. An answer that is no `stream` comes whole."""

    path: str
    body: bytes
    dialect: Dialect = Dialect.OWN
    stream: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


def wish_of(request: TaskRequest | EdgeRequest) -> Wish:
    """Give what placement is asked for *request*."""
    terms: Terms | TaskRequest
    if isinstance(request, EdgeRequest):
        terms, marks = request.terms, request.marks
    else:
        terms, marks = request, marks_of(request.inference())
    return Wish(request.model, terms.node, terms.backend, terms.device, marks=marks)


def errand_of(request: TaskRequest | EdgeRequest, task_id: str) -> Errand:
    """Give what a worker is asked for *request*."""
    if isinstance(request, TaskRequest):
        return Errand("/v1/inference", json.dumps({**request.inference(), "request_id": task_id}).encode())
    # A header cannot carry every name; the worker only looks whether it is there.
    name = request.model.encode("ascii", "replace").decode()
    return Errand(request.path, request.body, DIALECTS[request.path], request.stream, {ROUTED_HEADER: name})
