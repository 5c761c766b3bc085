"""The rows of `GET /v2/events`: what a page or a terminal shows of the fleet.

The stream begins with all rows, in events named `snapshot` and one `complete`, and goes on with `changes`. The body of
both is `{"changes": [{"kind": ..., "id": ..., "row": {...}}]}`; a row of null is gone. `complete` and every `changes`
have an id, with which, as `Last-Event-ID` or `?after=`, a reader goes on where it was, without a snapshot. A reader
that is too slow is sent `dropped`, and begins anew. Kinds of rows and their ids:

* `queen`: its version and settings for people (one row);
* `node`: a `HiveInfo` without models and workers, by name;
* `catalog`: the models on a node, by its name;
* `worker`: a `WorkerInfo`, by id;
* `served`: a `ServedInfo`, by name;
* `download`: a `NodeDownload`, by node and reference;
* `load`: a `LoadRow`, by the id of the worker, while it loads its model;
* `task`: a `TaskRow`, by id; those that have ended stay for a while.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rbee.contracts.models import LoadingProgress

TaskState = Literal["waiting", "running", "done", "failed", "canceled"]


class EventsQuery(BaseModel):
    """The query of `GET /v2/events`: the id of the last event that the reader had."""

    model_config = ConfigDict(extra="forbid")

    after: str = Field(default="", max_length=128)


class LoadRow(LoadingProgress):
    """How far a worker is that loads its model."""

    worker_id: str


class TaskRow(BaseModel):
    """One request, from its admission to some time after its end. Times in seconds.

    `model` is what it was placed for, `position` its place among `queue_length` that wait for the same kind of slot.
    `first_token_s` counts from its arrival, of an answer that is streamed; `tokens` are those of the answer so far.
    Prompt and cached tokens are known at its end, in some interfaces before. `error` is the code of what ended it.
    """

    model_config = ConfigDict(defer_build=True, protected_namespaces=())

    id: str
    client: str
    model: str
    priority: int
    state: TaskState
    arrived_unix: float
    node: str | None = None
    worker_id: str | None = None
    position: int | None = None
    queue_length: int | None = None
    waited_s: float | None = None
    first_token_s: float | None = None
    took_s: float | None = None
    tokens: int = 0
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    error: str | None = None
